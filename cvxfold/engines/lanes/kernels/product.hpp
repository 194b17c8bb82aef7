// Products with A and P as they are stored.
#pragma once

#include "loops.hpp"
#include "shape.hpp"

namespace cvxfold {

// out = A x, (m).
CVXFOLD_LONG void multiply_A(const Shape &S, const Pack *A, const Pack *x, Pack *out) {
    const auto entry = [&](int e) { return Value(A[e]); };
    const auto number = [&](int e) { return Value(x[S.A_column[e]]); };
    if constexpr (GROUP > 1) { // a row for each
        fill(out, S.m, [&](int row) {
            Value sum{};
            for (int e = S.A_start[row]; e < S.A_start[row + 1]; e++)
                sum = fused(entry(e), number(e), sum);
            return sum;
        });
    } else {
        for (int row = 0; row < S.m; row++)
            out[row] = sum_of_products(S.A_start[row], S.A_start[row + 1], Value{}, entry, number);
    }
}

// out += A'y, (n).
CVXFOLD_LONG void add_A_transposed(const Shape &S, const Pack *A, const Pack *y, Pack *out) {
    for (int row = 0; row < S.m; row++) {
        const Value factor = y[row];
        change_at(out, S.A_column, S.A_start[row], S.A_start[row + 1],
                  [&](int e, Value sum) { return fused(A[e], factor, sum); });
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
CVXFOLD_LONG Value infinity_norm(const Pack *v, int size) {
    return largest_of(0, size, [&](int i) { return abs(v[i]); });
}

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
