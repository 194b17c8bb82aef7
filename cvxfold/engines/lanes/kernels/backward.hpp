// From loss gradients on a pack's solutions to its adjoint, the error of the gradient, and the adjoint in the
// program's own units.
#pragma once

#include "adjoint.hpp"
#include "layout.hpp"

namespace cvxfold {

const double FELT = 1e-7; // as cvxfold.gradient.screen has it

// The norm of what counts as the size of a gradient whose terms cancel: that of p = x_bar/diag(M), v = R (|A p| +
// |y_bar|), with M = P + A'R A: the gradient of the splitting's first step, M taken by its diagonal.
// Uses w.dx, w.du, w.scratch.
inline Pack gradient_of_first_step(const Shape &S, const Layout &Y, Workspace &w, const Pack *x_bar, const Pack *y_bar,
                                   const DataGradient &at) {
    Pack *diagonal = w.scratch, *p = w.dx, *v = w.du;
    for (int i = 0; i < S.n; i++)
        diagonal[i] = splat(SIGMA);
    for (int e = 0; e < S.nnz_P; e++)
        if (S.P_row[e] == S.P_column[e])
            diagonal[S.P_row[e]] += w.P[e];
    for (int j = 0; j < S.m; j++)
        for (int e = S.A_start[j]; e < S.A_start[j + 1]; e++)
            diagonal[S.A_column[e]] += w.R[j] * w.A[e] * w.A[e];
    for (int i = 0; i < S.n; i++)
        p[i] = x_bar[i] / diagonal[i];
    multiply_A(S, w.A, p, v);
    for (int j = 0; j < S.m; j++)
        v[j] = w.R[j] * (abs(v[j]) + abs(y_bar[j])) * w.rows[j];
    for (int i = 0; i < S.n; i++)
        p[i] *= w.columns[i];
    return sqrt(squared_norm_on_moving(S, Y, {p, v, at.x, at.y}));
}

// Loss gradients in a.x_bar, a.z_bar (y_bar), equilibrated; x and y in own units. Leaves p in a.p, v in w.y, both
// in the program's own units. y_given: (m), a copy of y_bar, is overwritten.
inline Screened backward(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a, Progress &progress,
                         const Pack *x, const Pack *y, Pack *y_given) {
    for (int j = 0; j < S.m; j++)
        y_given[j] = a.z_bar[j];
    Screened seen = adjoint(S, w, a, progress);
    Pack *dp = w.Px, *dv = w.primal;
    gather<1>(S, w.right, 0, a.upper, a.lower); // one more correction
    solve<1>(S, w.newton, w.right);
    for (int i = 0; i < S.n; i++)
        dp[i] = w.right[S.place[i]] * w.columns[i];
    for (int j = 0; j < S.m; j++)
        dv[j] = w.E[j] * w.right[S.place[S.n + j]];
    out_of_frame(S, w.frame, dv, dv);
    for (int j = 0; j < S.m; j++) {
        dv[j] *= w.rows[j];
        w.y[j] *= w.rows[j];
    }
    for (int i = 0; i < S.n; i++)
        a.p[i] *= w.columns[i];
    Pack change = sqrt(squared_norm_on_moving(S, Y, {dp, dv, x, y}));
    Pack gradient = sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, x, y}));
    Pack floor = FELT * gradient_of_first_step(S, Y, w, a.x_bar, y_given, {nullptr, nullptr, x, y});
    Pack size = max(gradient, floor);
    seen.error = select(change == 0.0, change, change / max(size, splat(2.3e-308)));
    seen.strength = select(size == 0.0, Pack{}, FELT * size / max(floor, splat(2.3e-308)));
    return seen;
}

} // namespace cvxfold
