// Solutions with K = L D L': forward through the leaves and the rest, and back.
#pragma once

#include "factor.hpp"

namespace cvxfold {

// Whether column j of L is more than nothing.
inline bool is_at_work(const Factor &f, int j) { return !CVXFOLD_QUADS || f.idle[j][0] == 0; }

// Of C right-hand sides column j by what is known of it: right -= L right_j.
template <int C>
inline void substitute_column(const Shape &S, const Pack *CVXFOLD_RESTRICT L, int j,
                              Pack *CVXFOLD_RESTRICT right) {
    const int first = S.L_start[j], end = S.L_start[j + 1];
    Value known[C];
    for (int c = 0; c < C; c++)
        known[c] = right[static_cast<size_t>(c) * S.N + j];
    if (are_neighbours(S.L_row, first, end)) {
        for (int c = 0; c < C; c++) {
            Pack *CVXFOLD_RESTRICT own = right + static_cast<size_t>(c) * S.N + (S.L_row[first] - first);
            CVXFOLD_INDEPENDENT
            for (int e = first; e < end; e++)
                own[e] = fused(-L[e], known[c], own[e]);
        }
        return;
    }
    in_runs(first, end, [&](int from, auto run) {
        Value next[run.value][C];
        for (int k = 0; k < run.value; k++)
            for (int c = 0; c < C; c++)
                next[k][c] = fused(-L[from + k * GROUP], known[c],
                                   right[static_cast<size_t>(c) * S.N + S.L_row[from + k * GROUP]]);
        for (int k = 0; k < run.value; k++)
            for (int c = 0; c < C; c++)
                right[static_cast<size_t>(c) * S.N + S.L_row[from + k * GROUP]] = next[k][c];
    });
    together();
}

// Takes the products of column j with the rows behind it from sum.
template <int C>
inline void subtract_column(const Shape &S, const Pack *CVXFOLD_RESTRICT L, int j, const Pack *right,
                            Value (&sum)[C]) {
    const int first = S.L_start[j], end = S.L_start[j + 1];
    const auto term = [](auto entry, auto from, auto so_far) { return fused(-entry, from, so_far); };
    if (are_neighbours(S.L_row, first, end)) {
        for (int c = 0; c < C; c++)
            sum[c] = sum_over_row(L, right + static_cast<size_t>(c) * S.N, S.L_row, first, end, sum[c], term);
        return;
    }
    Value own[C][SUMS] = {};
    for (int c = 0; c < C; c++)
        if (number_in_group() == 0)
            own[c][0] = sum[c];
    in_runs<SUMS>(first, end, [&](int at, auto run) {
        Value entry[run.value], from[run.value][C];
        for (int k = 0; k < run.value; k++) {
            entry[k] = L[at + k * GROUP];
            for (int c = 0; c < C; c++)
                from[k][c] = right[static_cast<size_t>(c) * S.N + S.L_row[at + k * GROUP]];
        }
        for (int k = 0; k < run.value; k++)
            for (int c = 0; c < C; c++)
                own[c][k] = term(entry[k], from[k][c], own[c][k]);
    });
    for (int c = 0; c < C; c++)
        sum[c] = joined(total_of(own[c]), Sum());
}

// C right-hand sides at once, in place, in the elimination order, (C, N).
template <int C> CVXFOLD_LONG void solve(const Shape &S, Factor f, Pack *CVXFOLD_RESTRICT right) {
    const Pack *CVXFOLD_RESTRICT L = f.L;
    const auto at = [&](int i, int c) -> Pack & { return right[static_cast<size_t>(c) * S.N + i]; };
    each(S.N - S.leaves, [&](int i) { // what the leaves do to others
        for (int l = S.leaf_start[i]; l < S.leaf_start[i + 1]; l++)
            for (int c = 0; c < C; c++)
                at(S.leaves + i, c) = fused(-L[l], at(l, c), at(S.leaves + i, c));
    });
    for (int j = S.leaves; j < S.N; j++)
        if (is_at_work(f, j))
            substitute_column<C>(S, L, j, right);
    for (int j = S.N - 1; j >= S.leaves; j--) {
        Value sum[C] = {};
        for (int c = 0; c < C; c++)
            if (number_in_group() == 0)
                sum[c] = at(j, c) * f.inverse_D[j];
        if (is_at_work(f, j))
            subtract_column<C>(S, L, j, right, sum);
        for (int c = 0; c < C; c++)
            if (number_in_group() == 0)
                at(j, c) = sum[c];
        together();
    }
    each(S.leaves, [&](int l) {
        for (int c = 0; c < C; c++)
            at(l, c) = fused(-L[l], at(S.L_row[l], c), at(l, c) * f.inverse_D[l]);
    });
}

} // namespace cvxfold
