// K = L D L' without pivoting, which a quasi-definite K allows in any order
// (Vanderbei, "Symmetric quasidefinite matrices", 1995), and solutions with it.
#pragma once

#include "pack.hpp"
#include "shape.hpp"

namespace cvxfold {

struct Factor {
    Pack *L, *D, *inverse_D;
};

// Column by column from the left: column j takes what every earlier column k with L_jk != 0 does to it, up to
// four columns of one pattern at a time, so that each entry of the target is loaded and stored once for them.
//
// Args: K: (nnz_K). target: (N), zero before and after.
inline void factorize(const Shape &S, const Pack *__restrict K, Factor f, Pack *__restrict target) {
    Pack *__restrict L = f.L;
    const Pack *__restrict D = f.D;
    for (int j = 0; j < S.N; j++) {
        for (int p = S.K_start[j]; p < S.K_start[j + 1]; p++)
            target[S.K_row[p]] = K[p];
        Pack pivot = target[j];
        for (int r = S.row_start[j]; r < S.row_start[j + 1];) {
            const int run = S.row_run[r], k = S.row_column[r];
            const int e0 = S.row_entry[r], length = S.L_start[k + 1] - e0;
            const int32_t *rows = S.L_row + e0;
            const Pack *L0 = L + e0;
            const Pack g0 = L0[0] * D[k];
            pivot -= L0[0] * g0;
            if (run == 4) {
                const Pack *L1 = L + S.row_entry[r + 1], *L2 = L + S.row_entry[r + 2],
                           *L3 = L + S.row_entry[r + 3];
                const Pack g1 = L1[0] * D[k + 1], g2 = L2[0] * D[k + 2], g3 = L3[0] * D[k + 3];
                pivot -= L1[0] * g1 + L2[0] * g2 + L3[0] * g3;
                for (int i = 1; i < length; i++)
                    target[rows[i]] -= L0[i] * g0 + L1[i] * g1 + (L2[i] * g2 + L3[i] * g3);
            } else if (run >= 2) {
                const Pack *L1 = L + S.row_entry[r + 1];
                const Pack g1 = L1[0] * D[k + 1];
                pivot -= L1[0] * g1;
                for (int i = 1; i < length; i++)
                    target[rows[i]] -= L0[i] * g0 + L1[i] * g1;
            } else {
                for (int i = 1; i < length; i++)
                    target[rows[i]] -= L0[i] * g0;
            }
            r += run == 3 ? 2 : run;
        }
        f.D[j] = pivot;
        const Pack inverse = 1.0 / pivot;
        f.inverse_D[j] = inverse;
        target[j] = Pack{};
        for (int p = S.L_start[j]; p < S.L_start[j + 1]; p++) {
            L[p] = target[S.L_row[p]] * inverse;
            target[S.L_row[p]] = Pack{};
        }
    }
}

// C right-hand sides at once, in place, in the elimination order: right[i * C + c].
template <int C> inline void solve(const Shape &S, Factor f, Pack *__restrict right) {
    const Pack *__restrict L = f.L;
    for (int j = 0; j < S.N; j++) {
        Pack known[C];
        for (int c = 0; c < C; c++)
            known[c] = right[j * C + c];
        for (int p = S.L_start[j]; p < S.L_start[j + 1]; p++) {
            Pack *to = right + S.L_row[p] * C;
            for (int c = 0; c < C; c++)
                to[c] -= L[p] * known[c];
        }
    }
    for (int j = S.N - 1; j >= 0; j--) {
        Pack sum[C];
        for (int c = 0; c < C; c++)
            sum[c] = right[j * C + c] * f.inverse_D[j];
        for (int p = S.L_start[j]; p < S.L_start[j + 1]; p++) {
            const Pack *from = right + S.L_row[p] * C;
            for (int c = 0; c < C; c++)
                sum[c] -= L[p] * from[c];
        }
        for (int c = 0; c < C; c++)
            right[j * C + c] = sum[c];
    }
}

} // namespace cvxfold
