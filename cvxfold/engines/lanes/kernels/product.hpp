// Products with A and P as they are stored.
#pragma once

#include "loops.hpp"
#include "shape.hpp"

namespace cvxfold {

// out = A x, (m).
inline void multiply_A(const Shape &S, const Pack *A, const Pack *x, Pack *out) {
    for (int row = 0; row < S.m; row++)
        out[row] = sum_of(S.A_start[row], S.A_start[row + 1], [&](int e) { return A[e] * x[S.A_column[e]]; });
}

// out += A'y, (n).
inline void add_A_transposed(const Shape &S, const Pack *A, const Pack *y, Pack *out) {
    for (int row = 0; row < S.m; row++) {
        const Value factor = y[row];
        change_at(out, S.A_column, S.A_start[row], S.A_start[row + 1],
                  [&](int e, Value sum) { return sum + A[e] * factor; });
    }
}

// out[i] += term(e, j) for each entry (i, j) of the whole of P, of which e is stored.
template <typename F> inline void add_over_P(const Shape &S, Pack *out, F term) {
    in_runs(0, S.nnz_P, [&](int first, auto run) {
        Value on_row[run.value], on_column[run.value];
        const int32_t *row = S.P_row + first, *column = S.P_column + first;
        bool diagonal = true;
        for (int k = 0; k < run.value; k++) {
            on_row[k] = term(first + k, column[k]);
            on_column[k] = term(first + k, row[k]);
            diagonal &= row[k] == column[k];
        }
        if (diagonal) {
            for (int k = 0; k < run.value; k++)
                on_row[k] += out[row[k]];
            for (int k = 0; k < run.value; k++)
                out[row[k]] = on_row[k];
        } else {
            for (int k = 0; k < run.value; k++) {
                out[row[k]] += on_row[k];
                if (row[k] != column[k])
                    out[column[k]] += on_column[k];
            }
        }
    });
}

// out = P x, (n).
inline void multiply_P(const Shape &S, const Pack *P, const Pack *x, Pack *out) {
    clear(out, S.n);
    add_over_P(S, out, [&](int e, int j) { return P[e] * x[j]; });
}

// The largest |v_i|, NaN where one is.
inline Value infinity_norm(const Pack *v, int size) {
    return largest_of(0, size, [&](int i) { return abs(v[i]); });
}

inline Value squared_norm(const Pack *v, int size) {
    return sum_of(0, size, [&](int i) { return v[i] * v[i]; });
}

inline Value dot(const Pack *a, const Pack *b, int size) {
    return sum_of(0, size, [&](int i) { return a[i] * b[i]; });
}

} // namespace cvxfold
