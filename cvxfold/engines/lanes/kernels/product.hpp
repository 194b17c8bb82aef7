// Products with A and P as they are stored.
#pragma once

#include "loops.hpp"
#include "shape.hpp"

namespace cvxfold {

// out = A x, (m).
CVXFOLD_LONG void multiply_A(const Shape &S, const Pack *A, const Pack *x, Pack *out) {
    const auto term = [&](int e) { return A[e] * x[S.A_column[e]]; };
    if constexpr (GROUP > 1) { // a row for each
        fill(out, S.m, [&](int row) {
            Value sum{};
            for (int e = S.A_start[row]; e < S.A_start[row + 1]; e++)
                sum += term(e);
            return sum;
        });
    } else {
        for (int row = 0; row < S.m; row++)
            out[row] = sum_of(S.A_start[row], S.A_start[row + 1], term);
    }
}

// out += A'y, (n).
CVXFOLD_LONG void add_A_transposed(const Shape &S, const Pack *A, const Pack *y, Pack *out) {
    for (int row = 0; row < S.m; row++) {
        const Value factor = y[row];
        change_at(out, S.A_column, S.A_start[row], S.A_start[row + 1],
                  [&](int e, Value sum) { return sum + A[e] * factor; });
    }
}

// out[i] += term(e, j) for each entry (i, j) of the whole of P, of which e is stored.
template <typename F> inline void add_over_P(const Shape &S, Pack *out, F term) {
    if (S.diagonal_P) {
        change_at(out, S.P_row, 0, S.nnz_P, [&](int e, Value sum) { return sum + term(e, S.P_row[e]); });
        return;
    }
    one_by_one([&] {
        for (int e = 0; e < S.nnz_P; e++) {
            const int row = S.P_row[e], column = S.P_column[e];
            const Value on_row = term(e, column), on_column = term(e, row);
            out[row] += on_row;
            if (row != column)
                out[column] += on_column;
        }
    });
}

// out = P x, (n).
CVXFOLD_LONG void multiply_P(const Shape &S, const Pack *P, const Pack *x, Pack *out) {
    clear(out, S.n);
    add_over_P(S, out, [&](int e, int j) { return P[e] * x[j]; });
}

// The largest |v_i|, NaN where one is.
CVXFOLD_LONG Value infinity_norm(const Pack *v, int size) {
    return largest_of(0, size, [&](int i) { return abs(v[i]); });
}

// The largest of some numbers in all of their places.
CVXFOLD_LONG void spread_largest(Pack *numbers, int count) {
    const Value most = infinity_norm(numbers, count);
    fill(numbers, count, [&](int) { return most; });
}

CVXFOLD_LONG Value squared_norm(const Pack *v, int size) {
    return sum_of(0, size, [&](int i) { return v[i] * v[i]; });
}

inline Value dot(const Pack *a, const Pack *b, int size) {
    return sum_of(0, size, [&](int i) { return a[i] * b[i]; });
}

} // namespace cvxfold
