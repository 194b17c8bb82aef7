#include "analysis.hpp"

#include <algorithm>
#include <utility>

#include "kernels/frames.hpp"

namespace cvxfold {

namespace {
const double LEAST_WORK = 4096; // multiplications
const double DEAR = 3; // of F's applications, by multiplications: from there on a factorization costs much
const double LONG_RUN = 6, VERY_LONG_RUN = 24; // neighbouring rows, on average
const double SPARSE = 0.25;                    // entries of a semidefinite cone's rows, at most
const size_t LARGE = size_t(1) << 20;          // bytes
const size_t LEAST_PACK = 4;                   // instances

template <typename T> std::vector<T> copied(const T *from, size_t count) {
    return count ? std::vector<T>(from, from + count) : std::vector<T>();
}
} // namespace

Analysis::Analysis(const Description &given)
    : shape{}, multiplications(0), sizes_(copied(given.sizes, given.second_order)),
      orders_(copied(given.orders, given.semidefinite)), P_row_(copied(given.P_row, given.nnz_P)),
      P_column_(copied(given.P_column, given.nnz_P)), A_start_(copied(given.A_start, given.m + 1)),
      A_column_(copied(given.A_column, given.nnz_A)), alpha_(copied(given.alpha, given.power)) {
    Shape &S = shape;
    S.n = given.n;
    S.m = given.m;
    S.N = given.n + given.m;
    S.zero = given.zero;
    S.nonnegative = given.nonnegative;
    S.second_order = given.second_order;
    S.semidefinite = given.semidefinite;
    S.exponential = given.exponential;
    S.power = given.power;
    S.nnz_P = given.nnz_P;
    S.nnz_A = given.nnz_A;
    S.frame = FRAME3 * (given.exponential + given.power);
    for (int size : sizes_)
        S.frame += second_order::frame_size(size);
    S.sizes = sizes_.data();
    S.orders = orders_.data();
    S.frame += eigenvector_packs(S) + cone_scratch(S);
    S.roots = given.exponential + given.power + eigenvector_packs(S) + cone_scratch(S);
    find_order(given);
    find_matrices(given);
    find_K();
    find_L();
    find_panels();
    find_reach();
    S.alpha = alpha_.data();
    S.P_row = P_row_.data();
    S.P_column = P_column_.data();
    S.A_start = A_start_.data();
    S.A_column = A_column_.data();
    S.place = place_.data();
    S.K_start = K_start_.data();
    S.K_row = K_row_.data();
    S.P_in_K = P_in_K_.data();
    S.A_in_K = A_in_K_.data();
    S.diagonal_in_K = diagonal_in_K_.data();
    S.matrices = matrices_.data();
    S.own_start = own_start_.data();
    S.own_entry = own_entry_.data();
    S.own_column = own_column_.data();
    S.own_place = own_place_.data();
    S.column_start = column_start_.data();
    S.in_column = in_column_.data();
    S.pair_in_K = pair_in_K_.data();
    S.leaf_start = leaf_start_.data();
    S.L_start = L_start_.data();
    S.L_row = L_row_.data();
    S.L_reach = L_reach_.data();
    S.panels = static_cast<int32_t>(panels_.size());
    S.panel = panels_.data();
    S.update = updates_.data();
    find_best_packs();
    S.diagonal_P = P_row_ == P_column_;
}

// Where everything stands in the order: as given, but for the leaves, which come first, sorted by their row.
// What has one neighbour alone, and stands before it, can as well be eliminated before all else.
void Analysis::find_order(const Description &given) {
    Shape &S = shape;
    std::vector<int32_t> given_place(S.N), neighbour(S.N, -1), leaves, rest;
    for (int k = 0; k < S.N; k++)
        given_place[given.order[k]] = k;
    const int32_t SEVERAL = -2;
    auto meet = [&](int32_t a, int32_t b) {
        if (a != b && neighbour[a] != b)
            neighbour[a] = neighbour[a] == -1 ? b : SEVERAL;
    };
    for (int e = 0; e < S.nnz_P; e++) {
        meet(P_row_[e], P_column_[e]);
        meet(P_column_[e], P_row_[e]);
    }
    for (int j = 0; j < S.m; j++)
        for (int e = A_start_[j]; e < A_start_[j + 1]; e++) {
            meet(S.n + j, A_column_[e]);
            meet(A_column_[e], S.n + j);
        }
    for (int k = 0; k < S.N; k++) {
        const int32_t one = given.order[k], other = neighbour[one];
        (other >= 0 && given_place[other] > k ? leaves : rest).push_back(one);
    }
    S.leaves = static_cast<int32_t>(leaves.size());
    place_.resize(S.N);
    for (size_t i = 0; i < rest.size(); i++)
        place_[rest[i]] = S.leaves + static_cast<int32_t>(i);
    std::stable_sort(leaves.begin(), leaves.end(),
                     [&](int32_t a, int32_t b) { return place_[neighbour[a]] < place_[neighbour[b]]; });
    leaf_start_.assign(rest.size() + 1, 0);
    for (size_t l = 0; l < leaves.size(); l++) {
        place_[leaves[l]] = static_cast<int32_t>(l);
        leaf_start_[place_[neighbour[leaves[l]]] - S.leaves + 1]++;
    }
    for (size_t i = 0; i < rest.size(); i++)
        leaf_start_[i + 1] += leaf_start_[i];
}

// K's entries in the order, by columns of the lower triangle, and where those of P, A and the diagonal are.
void Analysis::find_K() {
    const Shape &S = shape;
    struct Entry {
        int32_t column, row, *where;
    };
    std::vector<Entry> entries;
    entries.reserve(S.N + S.nnz_P + S.nnz_A);
    diagonal_in_K_.resize(S.N);
    P_in_K_.resize(S.nnz_P);
    A_in_K_.resize(S.nnz_A);
    auto add = [&](int a, int b, int32_t *where) {
        const int32_t p = place_[a], q = place_[b];
        entries.push_back({std::min(p, q), std::max(p, q), where});
    };
    for (int i = 0; i < S.N; i++)
        add(i, i, &diagonal_in_K_[i]);
    for (int e = 0; e < S.nnz_P; e++)
        add(P_row_[e], P_column_[e], &P_in_K_[e]);
    pair_in_K_.resize(S.pairs);
    std::vector<bool> eliminated(S.m);
    for (const MatrixRows &M : matrices_) {
        if (M.pairs < 0)
            continue;
        const int32_t *columns = A_column_.data() + M.first;
        int32_t *pair = pair_in_K_.data() + M.pairs;
        for (int e = 0; e < M.count; e++)
            for (int f = 0; f <= e; f++)
                add(columns[e], columns[f], pair++);
        std::fill_n(eliminated.begin() + M.row, semidefinite::rows(M.order), true);
    }
    for (int j = 0; j < S.m; j++)
        for (int e = A_start_[j]; e < A_start_[j + 1]; e++) {
            if (eliminated[j])
                A_in_K_[e] = -1;
            else
                add(S.n + j, A_column_[e], &A_in_K_[e]);
        }
    std::sort(entries.begin(), entries.end(), [](const Entry &a, const Entry &b) {
        return a.column != b.column ? a.column < b.column : a.row < b.row;
    });
    K_start_.assign(S.N + 1, 0);
    for (size_t e = 0; e < entries.size(); e++) {
        const bool known =
            e > 0 && entries[e].column == entries[e - 1].column && entries[e].row == entries[e - 1].row;
        if (!known) {
            K_row_.push_back(entries[e].row);
            K_start_[entries[e].column + 1]++;
        }
        *entries[e].where = static_cast<int32_t>(K_row_.size()) - 1;
    }
    for (int j = 0; j < S.N; j++)
        K_start_[j + 1] += K_start_[j];
    shape.nnz_K = static_cast<int32_t>(K_row_.size());
}

// Column j of L has the rows of K's column j and of the columns whose first row below the diagonal is j.
void Analysis::find_L() {
    const int N = shape.N;
    std::vector<std::vector<int32_t>> columns(N), children(N);
    std::vector<int32_t> mark(N, -1);
    L_start_.assign(N + 1, 0);
    for (int j = 0; j < N; j++) {
        auto &rows = columns[j];
        mark[j] = j;
        auto take = [&](int32_t row) {
            if (mark[row] != j) {
                mark[row] = j;
                rows.push_back(row);
            }
        };
        for (int p = K_start_[j]; p < K_start_[j + 1]; p++)
            take(K_row_[p]);
        for (int child : children[j])
            for (int32_t row : columns[child])
                take(row);
        std::sort(rows.begin(), rows.end());
        if (!rows.empty())
            children[rows[0]].push_back(j);
        const int64_t count = static_cast<int64_t>(rows.size());
        multiplications += count * (count + 3) / 2;
        L_start_[j + 1] = L_start_[j] + static_cast<int32_t>(count);
    }
    L_row_.reserve(L_start_[N]);
    for (auto &rows : columns)
        L_row_.insert(L_row_.end(), rows.begin(), rows.end());
    shape.nnz_L = L_start_[N];
    shape.dear = multiplications >= DEAR * (2.0 * shape.nnz_L + N + shape.nnz_A);
}

// Whether the next column is this one without its first row.
bool Analysis::continues(int k) const {
    const int here = L_start_[k + 1] - L_start_[k], next = L_start_[k + 2] - L_start_[k + 1];
    return here == next + 1 && L_row_[L_start_[k]] == k + 1;
}

// Whether two columns have the same rows from these entries on.
bool Analysis::same_rows(int a, int from_a, int b, int from_b) const {
    const auto begin = L_row_.begin();
    return L_start_[a + 1] - from_a == L_start_[b + 1] - from_b &&
           std::equal(begin + from_a, begin + L_start_[a + 1], begin + from_b);
}

// Panels, and for each the runs of earlier columns that change it, of those that are no leaves.
void Analysis::find_panels() {
    const int N = shape.N;
    // Earlier columns that have rows in the panel at hand, with where the first of them is.
    struct Seen {
        int32_t column, entry, count, rows[PANEL];
    };
    std::vector<std::vector<std::pair<int32_t, int32_t>>> by_row(N); // (column, entry) of each row of L
    for (int j = shape.leaves; j < N; j++)
        for (int p = L_start_[j]; p < L_start_[j + 1]; p++)
            by_row[L_row_[p]].push_back({j, p});
    std::vector<int32_t> place(N, -1);
    for (int first = shape.leaves; first < N;) {
        int count = 1;
        while (count < PANEL && first + count < N && continues(first + count - 1))
            count++;
        std::vector<Seen> seen;
        for (int c = 0; c < count; c++)
            for (auto [column, entry] : by_row[first + c]) {
                if (column >= first)
                    continue;
                if (place[column] < 0) {
                    place[column] = static_cast<int32_t>(seen.size());
                    seen.push_back({column, entry, 0, {}});
                }
                Seen &one = seen[place[column]];
                one.rows[one.count++] = c;
            }
        std::sort(seen.begin(), seen.end(), [](const Seen &a, const Seen &b) { return a.column < b.column; });
        Panel panel{first, count, static_cast<int32_t>(updates_.size()), 0};
        for (size_t s = 0; s < seen.size();) {
            const auto follows = [&](size_t next) {
                const Seen &a = seen[next - 1], &b = seen[next];
                return b.column == a.column + 1 && a.count == b.count &&
                       std::equal(a.rows, a.rows + a.count, b.rows) &&
                       (continues(a.column) || same_rows(a.column, a.entry, b.column, b.entry));
            };
            size_t run = 1;
            while (run < PANEL && s + run < seen.size() && follows(s + run))
                run++;
            run = run == 3 ? 2 : run; // there are kernels for 1, 2 and 4
            Panel::Update update{seen[s].column, static_cast<int32_t>(run), seen[s].count, {}, {}};
            for (size_t k = 0; k < run; k++)
                update.entry[k] = seen[s + k].entry;
            std::copy(seen[s].rows, seen[s].rows + seen[s].count, update.target);
            updates_.push_back(update);
            s += run;
        }
        for (const Seen &one : seen)
            place[one.column] = -1;
        panel.end = static_cast<int32_t>(updates_.size());
        panels_.push_back(panel);
        first += count;
    }
}

void Analysis::find_reach() {
    L_reach_.resize(shape.nnz_L);
    for (int j = 0; j < shape.N; j++)
        for (int p = L_start_[j + 1] - 1; p >= L_start_[j]; p--)
            L_reach_[p] = p + 1 < L_start_[j + 1] && L_row_[p + 1] == L_row_[p] + 1 ? L_reach_[p + 1] : p + 1;
}

// Whether rows fill vectors better than instances do: to factor, always where a pack holds one instance or
// two, and where a whole pack's L does not fit in a cache; for all that is done, where that of a pack of
// LEAST_PACK does not, and there is little to do on cones.
void Analysis::find_best_packs() {
    double work = 0, pieces = 0;
    for (const Panel::Update &u : updates_)
        for (int p = u.entry[0], end = L_start_[u.column + 1]; p < end; p = std::min(L_reach_[p], end)) {
            pieces += u.run * u.count;
            work += u.run * u.count * (std::min(L_reach_[p], end) - p);
        }
    const auto is_large = [&](size_t instances) { return instances * sizeof(double) * shape.nnz_L > LARGE; };
    const bool worth = work >= LEAST_WORK, dense = work >= pieces * VERY_LONG_RUN;
    shape.alone = worth && dense && is_large(LEAST_PACK) && !shape.curved();
    shape.apart = worth && (W == 2 ? work >= pieces * LONG_RUN : dense && is_large(W));
}

} // namespace cvxfold
