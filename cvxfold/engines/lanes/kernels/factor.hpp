// K = L D L' without pivoting, which a quasi-definite K allows in any order
// (Vanderbei, "Symmetric quasidefinite matrices", 1995).
#pragma once

#include "dense_update.hpp"

namespace cvxfold {

const int HALF_AHEAD = AHEAD > 1 ? AHEAD / 2 : 1; // rows of a panel, of which several columns are read

// Whether numbers are so far away that some are read before any is written.
template <typename Number> constexpr bool FAR = AHEAD > 1 && sizeof(Number) == sizeof(Pack);

template <typename Number> struct AloneOf {
    typedef Number type;
};
template <> struct AloneOf<Pack> {
    typedef Value type;
};
// A number by itself, out of memory.
template <typename Number> using Alone = typename AloneOf<Number>::type;

template <typename Number> struct FactorOf {
    Number *L, *D, *inverse_D;
    Number *idle; // 1 where a column of L is nothing, of an instance alone
};

using Factor = FactorOf<Pack>;

// Calls change(i, row) for each of the rows `from` to `length` behind entry `first` of L, in any order: so
// one instance alone fills vectors with rows, where rows are neighbours.
template <typename Number, typename Change>
inline void each_row(const Shape &S, int first, int from, int length, Change change) {
    const int32_t *rows = S.L_row + first;
    if constexpr (sizeof(Number) > sizeof(double)) {
        for (int i = from; i < length; i++)
            change(i, rows[i]);
    } else {
        for (int i = from; i < length;) {
            const int reach = S.L_reach[first + i] - first, end = reach < length ? reach : length;
            const int ahead = rows[i] - i;
            CVXFOLD_INDEPENDENT
            for (int k = i; k < end; k++)
                change(k, k + ahead);
            i = end;
        }
    }
}

// The rows of a panel from `from` on, some of them read before any is written.
template <int RUN, int COUNT, typename Number>
inline void update_rows(const int32_t *rows, int from, int length, const Number *const *column,
                        const Alone<Number> (*factor)[COUNT], Number *const *to) {
    in_runs(from, length, [&](int first, auto run) {
        constexpr int SOME = run.value < HALF_AHEAD ? run.value : HALF_AHEAD;
        for (int part = first; part < first + run.value * GROUP; part += SOME * GROUP) {
            Value sum[SOME][COUNT], entry[SOME][RUN];
            for (int i = 0; i < SOME; i++) {
                for (int k = 0; k < RUN; k++)
                    entry[i][k] = column[k][part + i * GROUP];
                for (int c = 0; c < COUNT; c++)
                    sum[i][c] = to[c][rows[part + i * GROUP]];
            }
            for (int i = 0; i < SOME; i++)
                for (int c = 0; c < COUNT; c++) {
                    for (int k = 0; k < RUN; k++)
                        sum[i][c] = fused(-entry[i][k], factor[k][c], sum[i][c]);
                    to[c][rows[part + i * GROUP]] = sum[i][c];
                }
        }
    });
    together();
}

// What some earlier columns of one pattern do to a panel: RUN columns, COUNT of the panel's columns. Each
// entry of L is loaded once for COUNT targets, each target once for RUN columns.
template <int RUN, int COUNT, typename Number>
inline void update_panel(const Shape &S, const Panel::Update &u, const FactorOf<Number> &f,
                         Number *CVXFOLD_RESTRICT target) {
    const Number *column[RUN];
    Alone<Number> factor[RUN][COUNT];
    Number *to[COUNT];
    const int32_t *rows = S.L_row + u.entry[0];
    const int length = S.L_start[u.column + 1] - u.entry[0];
    for (int k = 0; k < RUN; k++) {
        column[k] = f.L + u.entry[k];
        for (int c = 0; c < COUNT; c++)
            factor[k][c] = column[k][c] * f.D[u.column + k];
    }
    for (int c = 0; c < COUNT; c++)
        to[c] = target + static_cast<size_t>(u.target[c]) * S.N;
    one_by_one([&] {
        for (int i = 0; i < COUNT; i++) // the panel's own rows: a triangle
            for (int c = 0; c <= i; c++) {
                Alone<Number> sum = to[c][rows[i]];
                for (int k = 0; k < RUN; k++)
                    sum = fused(-column[k][i], factor[k][c], sum);
                to[c][rows[i]] = sum;
            }
    });
    if constexpr (FAR<Number>) {
        update_rows<RUN, COUNT>(rows, COUNT, length, column, factor, to);
        return;
    }
    each_row<Number>(S, u.entry[0], COUNT, length, [&](int i, int row) {
        Alone<Number> entry[RUN];
        for (int k = 0; k < RUN; k++)
            entry[k] = column[k][i];
        for (int c = 0; c < COUNT; c++) {
            Alone<Number> sum = to[c][row];
            for (int k = 0; k < RUN; k++)
                sum = fused(-entry[k], factor[k][c], sum);
            to[c][row] = sum;
        }
    });
}

template <int RUN, typename Number>
inline void update_panel(const Shape &S, const Panel::Update &u, const FactorOf<Number> &f,
                         Number *CVXFOLD_RESTRICT target) {
    switch (u.count) {
    case 1:
        return update_panel<RUN, 1>(S, u, f, target);
    case 2:
        return update_panel<RUN, 2>(S, u, f, target);
    case 3:
        return update_panel<RUN, 3>(S, u, f, target);
    default:
        return update_panel<RUN, 4>(S, u, f, target);
    }
}

// to[index[p]] = from[p] for `first` <= p < `end`; index rises.
template <typename Number>
inline void copy_to(Number *CVXFOLD_RESTRICT to, const int32_t *index, int first, int end,
                    const Number *CVXFOLD_RESTRICT from) {
    if constexpr (FAR<Number>)
        change_at(to, index, first, end, [&](int p, Value) { return from[p]; });
    else if (are_neighbours(index, first, end))
        copy_together(to + index[first], from + first, end - first);
    else
        for (int p = first; p < end; p++)
            to[index[p]] = from[p];
}

// D and L of the leaves, whose columns are K's.
template <typename Number> inline void factorize_leaves(const Shape &S, const Number *K, FactorOf<Number> f) {
    const auto factorize = [&](int l) {
        const Alone<Number> pivot = K[2 * l], inverse = 1.0 / pivot;
        f.D[l] = pivot;
        f.inverse_D[l] = inverse;
        f.L[l] = K[2 * l + 1] * inverse;
    };
    if constexpr (FAR<Number>)
        each(S.leaves, factorize);
    else
        for (int l = 0; l < S.leaves; l++)
            factorize(l);
}

// What its leaves do to the diagonal of column j.
template <typename Number>
inline void update_by_leaves(const Shape &S, int j, const Number *K, const Number *L, Number &diagonal) {
    const int first = S.leaf_start[j - S.leaves], end = S.leaf_start[j - S.leaves + 1];
    if (first == end)
        return;
    one_by_one([&] {
        Alone<Number> sum = diagonal;
        for (int l = first; l < end; l++)
            sum = fused(-K[2 * l + 1], L[l], sum);
        diagonal = sum;
    });
}

// The leaves, and the rest panel by panel from the left; a panel is up to four neighbouring columns of one
// pattern.
//
// 1. K's columns. 2. What leaves and earlier columns do to them. 3. What the panel's columns do to each
// other, and L.
//
// Args: K: (nnz_K). target: (PANEL N), zero before and after, and (PANEL + 1, N) behind it.
template <typename Number>
CVXFOLD_LONG void factorize_panels(const Shape &S, const Number *CVXFOLD_RESTRICT K, FactorOf<Number> f,
                                   Number *CVXFOLD_RESTRICT target) {
    Number *scratch = target + static_cast<size_t>(PANEL) * S.N;
    factorize_leaves(S, K, f);
    for (int panel = 0; panel < S.panels; panel++) {
        const Panel &P = S.panel[panel];
        const int end = P.first + P.count;
        for (int j = P.first; j < end; j++) // 1
            copy_to(target + static_cast<size_t>(j - P.first) * S.N, S.K_row, S.K_start[j], S.K_start[j + 1],
                    K);
        for (int j = P.first; j < end; j++) // 2
            update_by_leaves(S, j, K, f.L, target[static_cast<size_t>(j - P.first) * S.N + j]);
        for (int u = P.begin; u < P.end; u++) {
            u = update_by_blocks(S, P, u, f.L, f.D, f.idle, target, scratch);
            if (u == P.end)
                break;
            const Panel::Update &update = S.update[u];
            if (update.run == 4)
                update_panel<4>(S, update, f, target);
            else if (update.run >= 2)
                update_panel<2>(S, update, f, target);
            else
                update_panel<1>(S, update, f, target);
        }
        for (int j = P.first; j < end; j++) { // 3
            Number *own = target + static_cast<size_t>(j - P.first) * S.N;
            const int first = S.L_start[j], length = S.L_start[j + 1] - first;
            const Alone<Number> pivot = own[j], inverse = 1.0 / pivot;
            Number *L = f.L + first;
            together();
            if (number_in_group() == 0) {
                f.D[j] = pivot;
                f.inverse_D[j] = inverse;
                own[j] = Number{};
            }
            if constexpr (FAR<Number>) {
                fill(L, length, [&](int i) { return own[S.L_row[first + i]] * inverse; });
                change_at(own, S.L_row, first, first + length, [](int, Value) { return Value{}; });
            } else {
                each_row<Number>(S, first, 0, length, [&](int i, int row) {
                    L[i] = own[row] * inverse;
                    own[row] = Number{};
                });
            }
            if constexpr (CVXFOLD_QUADS)
                f.idle[j] = is_idle(L, length);
            for (int c = j + 1; c < end; c++) { // row c is entry c - j - 1 of this column
                Number *other = target + static_cast<size_t>(c - P.first) * S.N;
                const Alone<Number> factor = L[c - j - 1] * pivot;
                if constexpr (FAR<Number>)
                    change_at(other, S.L_row + first, c - j - 1, length,
                              [&](int i, Value old) { return fused(-L[i], factor, old); });
                else
                    each_row<Number>(S, first, c - j - 1, length,
                                     [&](int i, int row) { other[row] = fused(-L[i], factor, other[row]); });
            }
        }
    }
}

// Doubles that `factorize_apart` needs.
inline size_t apart_size(const Shape &S) {
    const size_t N = S.N;
    return W > 1 && S.apart ? S.nnz_K + S.nnz_L + (2 + PANEL) * N : 0;
}

// Lane by lane, with the same bits. scratch: doubles (apart_size), zero at its end before and after.
inline void factorize_apart(const Shape &S, const Pack *CVXFOLD_RESTRICT K, Factor f,
                            double *CVXFOLD_RESTRICT scratch) {
    double *own_K = scratch, *L = own_K + S.nnz_K, *D = L + S.nnz_L, *inverse_D = D + S.N;
    for (int lane = 0; lane < W; lane++) {
        bool same = lane > 0; // as the lane before: a pack that is not full holds its last instance again
        for (int p = 0; same && p < S.nnz_K; p++)
            same = K[p][lane] == K[p][lane - 1];
        if (!same) {
            for (int p = 0; p < S.nnz_K; p++)
                own_K[p] = K[p][lane];
            factorize_panels<double>(S, own_K, {L, D, inverse_D, nullptr}, inverse_D + S.N);
        }
        for (int p = 0; p < S.nnz_L; p++)
            f.L[p][lane] = L[p];
        for (int j = 0; j < S.N; j++) {
            f.D[j][lane] = D[j];
            f.inverse_D[j][lane] = inverse_D[j];
        }
    }
}

// Args: K: (nnz_K). target: (PANEL N), zero before and after, and behind it (PANEL + 1, N) and what
// `factorize_apart` needs.
inline void factorize(const Shape &S, const Pack *CVXFOLD_RESTRICT K, Factor f,
                      Pack *CVXFOLD_RESTRICT target) {
    if (W > 1 && S.apart)
        factorize_apart(S, K, f,
                        reinterpret_cast<double *>(target + static_cast<size_t>(2 * PANEL + 1) * S.N));
    else
        factorize_panels<Pack>(S, K, f, target);
}

} // namespace cvxfold
