// Solutions with K = L D L': forward through the leaves and the rest, and back.
#pragma once

#include "factor.hpp"

namespace cvxfold {

// C right-hand sides at once, in place, in the elimination order: right[i * C + c].
template <int C> CVXFOLD_LONG void solve(const Shape &S, Factor f, Pack *CVXFOLD_RESTRICT right) {
    const Pack *CVXFOLD_RESTRICT L = f.L;
    const int32_t *CVXFOLD_RESTRICT rows = S.L_row, *CVXFOLD_RESTRICT starts = S.L_start;
    each(S.N - S.leaves, [&](int i) { // what the leaves do to others
        Pack *own = right + (S.leaves + i) * C;
        for (int l = S.leaf_start[i]; l < S.leaf_start[i + 1]; l++)
            for (int c = 0; c < C; c++)
                own[c] = fused(-L[l], right[l * C + c], own[c]);
    });
    for (int j = S.leaves; j < S.N; j++) {
        Value known[C];
        for (int c = 0; c < C; c++)
            known[c] = right[j * C + c];
        in_runs(starts[j], starts[j + 1], [&](int first, auto run) {
            Value next[run.value][C];
            for (int k = 0; k < run.value; k++)
                for (int c = 0; c < C; c++)
                    next[k][c] =
                        fused(-L[first + k * GROUP], known[c], right[rows[first + k * GROUP] * C + c]);
            for (int k = 0; k < run.value; k++)
                for (int c = 0; c < C; c++)
                    right[rows[first + k * GROUP] * C + c] = next[k][c];
        });
        together();
    }
    for (int j = S.N - 1; j >= S.leaves; j--) {
        Value sum[C][SUMS] = {};
        for (int c = 0; c < C; c++)
            if (number_in_group() == 0)
                sum[c][0] = right[j * C + c] * f.inverse_D[j];
        in_runs<SUMS>(starts[j], starts[j + 1], [&](int first, auto run) {
            Value entry[run.value], from[run.value][C];
            for (int k = 0; k < run.value; k++) {
                entry[k] = L[first + k * GROUP];
                for (int c = 0; c < C; c++)
                    from[k][c] = right[rows[first + k * GROUP] * C + c];
            }
            for (int k = 0; k < run.value; k++)
                for (int c = 0; c < C; c++)
                    sum[c][k] = fused(-entry[k], from[k][c], sum[c][k]);
        });
        for (int c = 0; c < C; c++) {
            const Value total = joined(total_of(sum[c]), Sum());
            if (number_in_group() == 0)
                right[j * C + c] = total;
        }
        together();
    }
    each(S.leaves, [&](int l) {
        for (int c = 0; c < C; c++)
            right[l * C + c] = fused(-L[l], right[rows[l] * C + c], right[l * C + c] * f.inverse_D[l]);
    });
}

} // namespace cvxfold
