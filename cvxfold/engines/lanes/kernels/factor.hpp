// K = L D L' without pivoting, which a quasi-definite K allows in any order
// (Vanderbei, "Symmetric quasidefinite matrices", 1995), and solutions with it.
#pragma once

#include "pack.hpp"
#include "shape.hpp"

namespace cvxfold {

struct Factor {
    Pack *L, *D, *inverse_D;
};

// What some earlier columns of one pattern do to a panel: RUN columns, COUNT of the panel's columns. Each
// entry of L is loaded once for COUNT targets, each target once for RUN columns.
template <int RUN, int COUNT>
inline void update_panel(const Shape &S, const Panel::Update &u, const Factor &f, Pack *__restrict target) {
    const Pack *column[RUN];
    Pack factor[RUN][COUNT];
    Pack *to[COUNT];
    const int32_t *rows = S.L_row + u.entry[0];
    const int length = S.L_start[u.column + 1] - u.entry[0];
    for (int k = 0; k < RUN; k++) {
        column[k] = f.L + u.entry[k];
        for (int c = 0; c < COUNT; c++)
            factor[k][c] = column[k][c] * f.D[u.column + k];
    }
    for (int c = 0; c < COUNT; c++)
        to[c] = target + static_cast<size_t>(u.target[c]) * S.N;
    for (int i = 0; i < COUNT; i++) // the panel's own rows: a triangle
        for (int c = 0; c <= i; c++) {
            Pack sum = to[c][rows[i]];
            for (int k = 0; k < RUN; k++)
                sum -= column[k][i] * factor[k][c];
            to[c][rows[i]] = sum;
        }
    for (int i = COUNT; i < length; i++) {
        const int row = rows[i];
        Pack entry[RUN];
        for (int k = 0; k < RUN; k++)
            entry[k] = column[k][i];
        for (int c = 0; c < COUNT; c++) {
            Pack sum = to[c][row];
            for (int k = 0; k < RUN; k++)
                sum -= entry[k] * factor[k][c];
            to[c][row] = sum;
        }
    }
}

template <int RUN>
inline void update_panel(const Shape &S, const Panel::Update &u, const Factor &f, Pack *__restrict target) {
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

// Panel by panel from the left; a panel is up to four neighbouring columns of one pattern.
//
// 1. K's columns. 2. What earlier columns do to them. 3. What the panel's columns do to each other, and L.
//
// Args: K: (nnz_K). target: (PANEL N), zero before and after.
inline void factorize(const Shape &S, const Pack *__restrict K, Factor f, Pack *__restrict target) {
    for (int panel = 0; panel < S.panels; panel++) {
        const Panel &P = S.panel[panel];
        const int end = P.first + P.count;
        for (int j = P.first; j < end; j++) // 1
            for (int p = S.K_start[j]; p < S.K_start[j + 1]; p++)
                target[static_cast<size_t>(j - P.first) * S.N + S.K_row[p]] = K[p];
        for (int u = P.begin; u < P.end; u++) { // 2
            const Panel::Update &update = S.update[u];
            if (update.run == 4)
                update_panel<4>(S, update, f, target);
            else if (update.run >= 2)
                update_panel<2>(S, update, f, target);
            else
                update_panel<1>(S, update, f, target);
        }
        for (int j = P.first; j < end; j++) { // 3
            Pack *own = target + static_cast<size_t>(j - P.first) * S.N;
            const int first = S.L_start[j], last = S.L_start[j + 1];
            const Pack pivot = own[j], inverse = 1.0 / pivot;
            f.D[j] = pivot;
            f.inverse_D[j] = inverse;
            own[j] = Pack{};
            for (int p = first; p < last; p++) {
                Pack &entry = own[S.L_row[p]];
                f.L[p] = entry * inverse;
                entry = Pack{};
            }
            for (int c = j + 1; c < end; c++) { // row c is entry c - j - 1 of this column
                Pack *other = target + static_cast<size_t>(c - P.first) * S.N;
                const Pack factor = f.L[first + c - j - 1] * pivot;
                for (int p = first + c - j - 1; p < last; p++)
                    other[S.L_row[p]] -= f.L[p] * factor;
            }
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
