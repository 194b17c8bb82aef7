#include <algorithm>

#include "analysis.hpp"
#include "kernels/semidefinite.hpp"

namespace cvxfold {

namespace {
const double SPARSE = 0.25; // of the entries of a semidefinite cone's rows, at most
} // namespace

// What the program has of the rows of semidefinite cones, and which of them are eliminated by themselves:
// those that come before all of their columns, which then are in a clique of L anyway.
void Analysis::find_matrices(const Description &given) {
    Shape &S = shape;
    S.matrix_row = S.separable();
    for (int32_t size : sizes_)
        S.matrix_row += size;
    int row = S.matrix_row;
    own_start_.push_back(0);
    column_start_.push_back(0);
    for (int32_t order : orders_) {
        const int rows = semidefinite::rows(order), first = A_start_[row];
        const int count = A_start_[row + 1] - first;
        const auto is_own = [&](int e) { return given.A_own[e] != 0; };
        MatrixRows M{row,
                     order,
                     first,
                     count,
                     static_cast<int32_t>(column_start_.size()) - 1,
                     static_cast<int32_t>(in_column_.size()),
                     -1,
                     0};
        int last_row = -1, first_column = S.N;
        for (int r = 0; r < rows; r++) {
            last_row = std::max(last_row, place_[S.n + row + r]);
            for (int e = first + r * count; e < first + (r + 1) * count; e++) {
                first_column = std::min(first_column, place_[A_column_[e]]);
                if (!is_own(e))
                    continue;
                own_entry_.push_back(e);
                own_column_.push_back(A_column_[e]);
                own_place_.push_back(place_[A_column_[e]]);
            }
            own_start_.push_back(static_cast<int32_t>(own_entry_.size()));
        }
        for (int c = 0; c < count; c++) {
            for (int i = 0; i < order; i++)
                for (int j = 0; j <= i; j++) {
                    const int r = semidefinite::column_begins(order, j) - j + i, e = first + r * count + c;
                    if (is_own(e))
                        in_column_.push_back({i, j, r, e});
                }
            column_start_.push_back(static_cast<int32_t>(in_column_.size()));
        }
        M.sparse = in_column_.size() - M.own < SPARSE * rows * count;
        if (count > 1 && last_row < first_column) {
            M.pairs = S.pairs;
            S.pairs += count * (count + 1) / 2;
            multiplications += static_cast<int64_t>(rows) * count * (count + 3) / 2;
        }
        matrices_.push_back(M);
        row += rows;
    }
    S.matrix_end = row;
}

} // namespace cvxfold
