// From loss gradients on a pack's solutions to its adjoint, the error of the gradient, and the adjoint in the
// program's own units.
#pragma once

#include "adjoint.hpp"
#include "layout.hpp"

namespace cvxfold {

// As cvxfold.gradient.diagnosis has them.
const double SIDES_AGREE = 1e-5, ASIDE = 4, SIDES[] = {1.0, -1.0};
const double FAINT = 1e-6;
const double WARY = 1e-8;          // an offset to look at, times what J magnifies it by
const double WARY_OF_FLAT = 1e-11; // likewise where no cone is curved
const double SIDES_DIFFER = 1e-2;  // beyond this no smooth change could be meant

// The norm of what counts as the size of a gradient whose terms cancel: that of p = x_bar/diag(M), v = R (|A
// p| + |y_bar|), with M = P + A'R A: the gradient of the splitting's first step, M taken by its diagonal.
// Uses w.dx, w.du, w.scratch.
inline Pack gradient_of_first_step(const Shape &S, const Layout &Y, Workspace &w, const Pack *x_bar,
                                   const Pack *y_bar, const DataGradient &at) {
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
    const Pack all = squared_norm(p, S.n) + squared_norm(v, S.m);
    return sqrt(max(squared_norm_on_moving(S, Y, {p, v, at.x, at.y}), FAINT * FAINT * all));
}

// Moves w.u by `side` times 4 `reach` into the cones whose distance to a kink is at most `reach`.
inline void step_aside(const Shape &S, Workspace &w, const Pack *u, const Pack *margin, Pack reach,
                       double side) {
    const double exponential_inside[] = {-1, 1, 1}, power_inside[] = {1, 1, 0};
    const Pack step = side * ASIDE * reach;
    auto move = [&](int j, double inside) {
        w.u[j] = u[j] + select(margin[j] <= reach, inside * step, Pack{});
    };
    for (int j = 0; j < S.separable(); j++)
        move(j, 1);
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        for (int i = 0; i < S.sizes[c]; i++)
            move(at + i, i == 0 ? 1 : 0);
    for (int c = 0; c < S.semidefinite; c++)
        for (int j = S.orders[c]; j > 0; at += j--)
            for (int i = 0; i < j; i++)
                move(at + i, i == 0 ? 1 : 0);
    for (int c = 0; c < S.exponential + S.power; c++, at += 3)
        for (int i = 0; i < 3; i++)
            move(at + i, c < S.exponential ? exponential_inside[i] : power_inside[i]);
}

// An adjoint in the program's own units and its state, put aside in w.found while others are tried.
struct Kept {
    Pack *p, *v, *u;

    Kept(const Shape &S, Workspace &w, const AdjointVectors &a) : p(w.found), v(p + S.n), u(v + S.m) {
        for (int i = 0; i < S.n; i++)
            p[i] = a.p[i];
        for (int j = 0; j < S.m; j++) {
            v[j] = w.y[j];
            u[j] = w.u[j];
        }
    }

    // Leaves in a.p and w.y how far they are from what is kept.
    void subtract(const Shape &S, Workspace &w, AdjointVectors &a) const {
        for (int i = 0; i < S.n; i++)
            a.p[i] -= p[i];
        for (int j = 0; j < S.m; j++)
            w.y[j] -= v[j];
    }

    void restore(const Shape &S, Workspace &w, AdjointVectors &a) const {
        for (int i = 0; i < S.n; i++)
            a.p[i] = p[i];
        for (int j = 0; j < S.m; j++) {
            w.y[j] = v[j];
            w.u[j] = u[j];
        }
    }
};

// The adjoint at w.u in the program's own units, p in a.p and v in w.y.
inline Screened adjoint_beside(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                               const Progress &progress, const Pack *y_given) {
    const Screened seen = adjoint(S, Y, w, a, progress, y_given, w.s);
    for (int j = 0; j < S.m; j++)
        w.y[j] *= w.rows[j];
    for (int i = 0; i < S.n; i++)
        a.p[i] *= w.columns[i];
    return seen;
}

// Whether it matters on which side of the kinks within `reach` an instance is: NO, where both sides give the
// same gradient on what parameters reach and on neither J is singular in a way that matters; YES, where the
// gradients are far apart; else PERHAPS. The adjoint and the state are as before afterwards.
inline Pack sides_matter(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                         const Progress &progress, const Pack *y_given, DataGradient at, Pack *margin,
                         Pack reach, Pack floor) {
    const Kept kept(S, w, a);
    Mask agree = all(), solved = all();
    Pack farthest{};
    Pack largest_norm = floor;
    for (double side : SIDES) {
        step_aside(S, w, kept.u, margin, reach, side);
        const Screened seen = adjoint_beside(S, Y, w, a, progress, y_given);
        solved &= seen.residual <= SIDES_AGREE;
        agree &= (seen.smallest >= SINGULAR) | (seen.matters == NO);
        largest_norm = max(largest_norm, sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, at.x, at.y})));
        kept.subtract(S, w, a);
        const Pack apart = sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, at.x, at.y}));
        agree &= apart <= 0.5 * SIDES_AGREE * largest_norm;
        farthest = max(farthest, apart);
    }
    kept.restore(S, w, a);
    const Mask apart = solved & (farthest > SIDES_DIFFER * largest_norm);
    return select(agree & solved, splat(NO), select(apart, splat(YES), splat(PERHAPS)));
}

// How much the gradient on what parameters reach changes, relatively, where the step w.offset that is left is
// taken: what its error is to first order (cvxfold.gradient.error). Infinite where that cannot be told. The
// adjoint and the state are as before afterwards.
inline Pack effect_of_offset(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                             const Progress &progress, const Pack *y_given, DataGradient at, Pack size) {
    const Kept kept(S, w, a);
    const Pack *step = w.offset, *du = step + S.N;
    Pack *dx = w.offset + S.N + S.m, *dy = dx + S.n; // `adjoint` leaves another step in their place
    for (int i = 0; i < S.n; i++)
        dx[i] = step[i] * w.columns[i] * progress.size;
    for (int j = 0; j < S.m; j++) {
        dy[j] = step[S.n + j] * w.rows[j] * progress.size;
        w.u[j] += du[j];
    }
    const Screened there = adjoint_beside(S, Y, w, a, progress, y_given);
    kept.subtract(S, w, a);
    const DataGradient by_point{kept.p, kept.v, dx, dy};
    const Pack change = sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, at.x, at.y}, &by_point));
    kept.restore(S, w, a);
    return select(there.residual <= SIDES_AGREE, change / max(size, splat(2.3e-308)), splat(__builtin_inf()));
}

// Loss gradients in a.x_bar and y_given, equilibrated; x and y in own units. Leaves p in a.p, v in w.y, both
// in the program's own units.
inline Screened backward(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                         const Progress &progress, const Pack *x, const Pack *y, const Pack *y_given) {
    Pack *margin = w.found + S.N + S.m;
    Screened seen = adjoint(S, Y, w, a, progress, y_given, margin);
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
    const Pack change = sqrt(squared_norm_on_moving(S, Y, {dp, dv, x, y}));
    const Pack gradient = sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, x, y}));
    const Pack floor = FELT * gradient_of_first_step(S, Y, w, a.x_bar, y_given, {nullptr, nullptr, x, y});
    const Pack size = max(gradient, floor);
    seen.error = select(change == 0.0, change, change / max(size, splat(2.3e-308)));
    seen.strength = select(size == 0.0, Pack{}, FELT * size / max(floor, splat(2.3e-308)));
    const Pack reach = max(splat(KINK), min(10.0 * seen.offset, splat(LARGEST_KINK))) * seen.state_size;
    // The derivative of a curved cone's projection moves with u. Where what J magnifies the step by at most
    // is no reason to be wary, that bound serves; else the step is taken.
    const double flattest = S.curved() ? SINGULAR : 1;
    const Pack bound = seen.offset / min(max(seen.smallest, splat(flattest)), splat(1));
    const Mask wary = ~(bound <= (S.curved() ? WARY : WARY_OF_FLAT));
    if (S.m > 0 && any(wary)) {
        const Pack seen_step = infinity_norm(w.offset + S.N, S.m) / seen.state_size;
        const Pack blur = max(seen.offset / max(seen_step, splat(2.3e-308)), splat(1));
        const Pack effect = effect_of_offset(S, Y, w, a, progress, y_given, {a.p, w.y, x, y}, size);
        seen.offset = select(wary, blur * effect, seen.offset);
    }
    if (any(seen.on_kink > 0.0)) {
        const Pack matter =
            sides_matter(S, Y, w, a, progress, y_given, {a.p, w.y, x, y}, margin, reach, size);
        seen.on_kink = select(seen.on_kink > 0.0, matter, splat(NO));
    }
    return seen;
}

} // namespace cvxfold
