// Products with A and P as they are stored.
#pragma once

#include "rows.hpp"
#include "shape.hpp"

namespace cvxfold {

// out = A x on the rows `from` <= row < `to`.
CVXFOLD_LONG void multiply_rows(const Shape &S, const Pack *A, const Pack *x, Pack *out, int from, int to) {
    if constexpr (GROUP > 1) { // a row for each
        fill(out + from, to - from, [&](int i) {
            Value sum{};
            for (int e = S.A_start[from + i]; e < S.A_start[from + i + 1]; e++)
                sum = fused(A[e], x[S.A_column[e]], sum);
            return sum;
        });
    } else {
        for (int row = from; row < to; row++)
            out[row] = sum_over_row(A, x, S.A_column, S.A_start[row], S.A_start[row + 1], Value{},
                                    [](auto a, auto b, auto sum) { return fused(a, b, sum); });
    }
}

// The same on rows of semidefinite cones, of which the program has not all entries.
CVXFOLD_LONG void multiply_matrix_rows(const Shape &S, const Pack *A, const Pack *x, Pack *out, int from,
                                       int to) {
    fill(out + from, to - from, [&](int i) {
        const int row = from + i - S.matrix_row;
        Value sum{};
        for (int k = S.own_start[row]; k < S.own_start[row + 1]; k++)
            sum = fused(A[S.own_entry[k]], x[S.own_column[k]], sum);
        return sum;
    });
}

// out = A x, (m).
CVXFOLD_LONG void multiply_A(const Shape &S, const Pack *A, const Pack *x, Pack *out) {
    multiply_rows(S, A, x, out, 0, S.matrix_row);
    multiply_matrix_rows(S, A, x, out, S.matrix_row, S.matrix_end);
    multiply_rows(S, A, x, out, S.matrix_end, S.m);
}

// out += A'y by the rows `from` <= row < `to`.
CVXFOLD_LONG void add_rows(const Shape &S, const Pack *A, const Pack *y, Pack *out, int from, int to) {
    for (int row = from; row < to; row++) {
        const Value factor = y[row];
        change_row(out, S.A_column, S.A_start[row], S.A_start[row + 1],
                   [&](int e, Value sum) { return fused(A[e], factor, sum); });
    }
}

// The same by rows of semidefinite cones.
CVXFOLD_LONG void add_matrix_rows(const Shape &S, const Pack *A, const Pack *y, Pack *out, int from, int to) {
    for (int row = from; row < to; row++) {
        const Value factor = y[row];
        const int first = S.own_start[row - S.matrix_row], end = S.own_start[row - S.matrix_row + 1];
        change_at(out, S.own_column, first, end,
                  [&](int k, Value sum) { return fused(A[S.own_entry[k]], factor, sum); });
    }
}

// out += A'y, (n).
CVXFOLD_LONG void add_A_transposed(const Shape &S, const Pack *A, const Pack *y, Pack *out) {
    add_rows(S, A, y, out, 0, S.matrix_row);
    add_matrix_rows(S, A, y, out, S.matrix_row, S.matrix_end);
    add_rows(S, A, y, out, S.matrix_end, S.m);
}

// out += |A|'|y|, (n): what A'y adds up.
inline void add_terms_of_A_transposed(const Shape &S, const Pack *A, const Pack *y, Pack *out) {
    for (int j = 0; j < S.m; j++) {
        const Value size = abs(y[j]);
        change_row(out, S.A_column, S.A_start[j], S.A_start[j + 1],
                   [&](int e, Value sum) { return sum + abs(A[e]) * size; });
    }
}

// out[i] = add(e, j, out[i]) for each entry (i, j) of the whole of P, of which e is stored.
template <typename F> inline void add_over_P(const Shape &S, Pack *out, F add) {
    if (S.diagonal_P) {
        change_at(out, S.P_row, 0, S.nnz_P, [&](int e, Value sum) { return add(e, S.P_row[e], sum); });
        return;
    }
    one_by_one([&] {
        for (int e = 0; e < S.nnz_P; e++) {
            const int row = S.P_row[e], column = S.P_column[e];
            out[row] = add(e, column, out[row]);
            if (row != column)
                out[column] = add(e, row, out[column]);
        }
    });
}

// out = P x, (n).
CVXFOLD_LONG void multiply_P(const Shape &S, const Pack *P, const Pack *x, Pack *out) {
    clear(out, S.n);
    add_over_P(S, out, [&](int e, int j, Value sum) { return fused(P[e], x[j], sum); });
}

// The largest |v_i|, NaN where one is.
CVXFOLD_LONG Value infinity_norm(const Pack *v, int size) { return largest_size(v, size); }

// The largest of some numbers in all of their places.
CVXFOLD_LONG void spread_largest(Pack *numbers, int count) {
    const Value most = infinity_norm(numbers, count);
    fill(numbers, count, [&](int) { return most; });
}

inline Value dot(const Pack *a, const Pack *b, int size) {
    return sum_of_products(
        0, size, Value{}, [&](int i) { return Value(a[i]); }, [&](int i) { return Value(b[i]); });
}

CVXFOLD_LONG Value squared_norm(const Pack *v, int size) { return dot(v, v, size); }

} // namespace cvxfold
