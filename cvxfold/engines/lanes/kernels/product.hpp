// Products with A and P as they are stored.
#pragma once

#include "pack.hpp"
#include "shape.hpp"

namespace cvxfold {

// out = A x, (m).
inline void multiply_A(const Shape &S, const Pack *A, const Pack *x, Pack *out) {
    for (int row = 0; row < S.m; row++) {
        Value sum{};
        for (int e = S.A_start[row]; e < S.A_start[row + 1]; e++)
            sum += A[e] * x[S.A_column[e]];
        out[row] = sum;
    }
}

// out += A'y, (n).
inline void add_A_transposed(const Shape &S, const Pack *A, const Pack *y, Pack *out) {
    for (int row = 0; row < S.m; row++) {
        const Value factor = y[row];
        for (int e = S.A_start[row]; e < S.A_start[row + 1]; e++)
            out[S.A_column[e]] += A[e] * factor;
    }
}

// out = P x, (n).
inline void multiply_P(const Shape &S, const Pack *P, const Pack *x, Pack *out) {
    for (int i = 0; i < S.n; i++)
        out[i] = Value{};
    for (int e = 0; e < S.nnz_P; e++) {
        const int row = S.P_row[e], column = S.P_column[e];
        if (row == column) {
            out[row] += P[e] * x[row];
        } else {
            const Value before = x[row];
            out[row] += P[e] * x[column];
            out[column] += P[e] * before;
        }
    }
}

// The largest |v_i|, NaN where one is.
inline Value infinity_norm(const Pack *v, int size) {
    Value norm{};
    for (int i = 0; i < size; i++)
        norm = largest(norm, abs(v[i]));
    return norm;
}

inline Value squared_norm(const Pack *v, int size) {
    Value sum{};
    for (int i = 0; i < size; i++)
        sum += v[i] * v[i];
    return sum;
}

inline Value dot(const Pack *a, const Pack *b, int size) {
    Value sum{};
    for (int i = 0; i < size; i++)
        sum += a[i] * b[i];
    return sum;
}

} // namespace cvxfold
