// How the gradient changes where the state moves by du and the adjoint's remainders are made good: its error,
// to first order.
//
// The adjoint satisfies P p + A'v = x_bar and D v = (I - D) z, z = R (A p - y_bar). Where u moves to u + du,
// D becomes D', and the second condition is violated by (D' - D)(v + z): of p and v
//
//     P dp + A'dv = t      D dv - (I - D) R A dp = -(D' - D)(v + z) - rest
//
// holds for the changes, t and the rest being what the adjoint leaves of its system. With rho = Q'(D' - D)(v
// + z) and dv = Q (E dzeta - rho/lambda, or E dzeta where lambda <= 1/2) it is K's system again.
#pragma once

#include "adjoint.hpp"
#include "layout.hpp"

namespace cvxfold {

// rho (m) in the frame, at w.u, a.p and w.y = v, for a step du; y_given: y_bar. Uses w.turned, w.scratch.
CVXFOLD_LONG void turn_of_projection(const Shape &S, Workspace &w, const AdjointVectors &a, const Pack *du,
                                     const Pack *y_given, Pack *rho) {
    Pack *sum = w.turned, *beside = w.scratch;
    // Less than twice a number's rounding may be rounded away again.
    fill(beside, S.m, [&](int j) { return w.u[j] + (du[j] + 2 * ROUNDING * share(j) * w.u[j]); });
    look(S, w.roots, beside, all(), w.lambda_beside, w.frame_beside, nullptr);
    multiply_A(S, w.A, a.p, sum);
    fill(sum, S.m, [&](int j) { return w.y[j] + w.R[j] * (sum[j] - y_given[j]); });
    into_frame(S, w.frame, sum, rho);
    fill(rho, S.m, [&](int j) { return rho[j] * (-w.lambda[j]); });
    into_frame(S, w.frame_beside, sum, sum);
    fill(sum, S.m, [&](int j) { return sum[j] * w.lambda_beside[j]; });
    out_of_frame(S, w.frame_beside, sum, sum);
    into_frame(S, w.frame, sum, sum);
    fill(rho, S.m, [&](int j) { return select(finite(sum[j]), rho[j] + sum[j], Value{}); });
    clear(rho, S.separable()); // half-lines have no curvature, and kinks are looked at elsewhere
}

// The terms (m) of cones in R^3 in their frames, |Q|'terms: small along an axis that is small where they are
// large.
inline void terms_into_frames3(const Shape &S, Pack *frame, Pack *terms) {
    const int count = S.exponential + S.power;
    const Pack *frames = frame_scratch(S, frame) - FRAME3 * count;
    each(count, [&](int c) {
        const Pack *Q = frames + FRAME3 * c;
        Pack *of = terms + S.m - 3 * (count - c);
        const Value t0 = of[0], t1 = of[1], t2 = of[2];
        for (int i = 0; i < 3; i++)
            of[i] = abs(Q[3 * i]) * t0 + abs(Q[3 * i + 1]) * t1 + abs(Q[3 * i + 2]) * t2;
    });
}

// What rounding may leave of the adjoint's system is added to a.upper and a.lower: a part of what is added up
// there, in the frames of second-order cones and of those in R^3, beside the largest of semidefinite ones.
// Uses w.turned, w.scratch.
inline void add_rounding(const Shape &S, Workspace &w, AdjointVectors &a) {
    Pack *columns = w.scratch;
    int in_R3 = S.m - 3 * (S.exponential + S.power), curved = S.separable();
    for (int c = 0; c < S.second_order; c++)
        curved += S.sizes[c];
    fill(columns, S.n, [&](int i) { return abs(a.x_bar[i]); });
    add_over_P(S, columns, [&](int e, int j, Value sum) { return sum + abs(w.P[e] * a.p[j]); });
    for (int j = 0; j < S.m; j++) {
        const bool by_frame = j >= S.separable() && j < curved;
        const Pack *A = by_frame ? w.rotated_A : w.A;
        const Value v = by_frame ? w.E[j] * abs(a.zeta[j]) : abs(w.y[j]);
        const int first = S.A_start[j], end = S.A_start[j + 1];
        set(w.turned[j], sum_over_row(w.A, a.p, S.A_column, first, end, Value{},
                                      [](auto of_A, auto p, auto sum) { return sum + abs(of_A * p); }));
        change_row(columns, S.A_column, first, end, [&](int e, Value sum) { return sum + abs(A[e]) * v; });
    }
    for (int cone = 0, at = S.separable(); at < in_R3; at += S.rows_of(cone++))
        spread_largest(w.turned + at, S.rows_of(cone));
    terms_into_frames3(S, w.frame, w.turned);
    each_pair(S, w, [&](int at, int, const second_order::Pair &) {
        set(w.turned[at + 1], terms_in_frame(S, w, a.p, at + 1));
    });
    fill(a.upper, S.n, [&](int i) { return a.upper[i] + (ROUNDING * share(i) * columns[i]); });
    fill(a.lower, S.m, [&](int j) {
        const Value terms = w.E[j] * w.turned[j] + abs(w.lambda[j] / w.R[j] * a.zeta[j]) + abs(a.z_bar[j]);
        return a.lower[j] + select(w.lambda[j] < 1.0, ROUNDING * share(j) * terms, Value{});
    });
}

// Adds to dp (n) and dzeta (m) what their remainder in the exact system asks for. Uses w.turned, w.scratch.
CVXFOLD_LONG void refine_change(const Shape &S, Workspace &w, const AdjointVectors &a, Pack *dp,
                                Pack *dzeta) {
    Pack *upper = w.scratch, *lower = upper + S.n;
    fill(w.turned, S.m, [&](int j) { return w.E[j] * dzeta[j]; });
    multiply_P(S, w.P, dp, upper);
    add_rotated_A_transposed(S, w, w.turned, upper);
    fill(upper, S.n, [&](int i) { return a.upper[i] - upper[i]; });
    multiply_rotated_A(S, w, dp, lower);
    fill(lower, S.m, [&](int j) {
        const Value rest = a.lower[j] - w.E[j] * lower[j] + w.lambda[j] / w.R[j] * dzeta[j];
        return select(w.lambda[j] < 1.0, rest, Value{});
    });
    gather(S, w.right, 0, upper, lower);
    solve_newton<1>(S, w);
    fill(dp, S.n, [&](int i) { return dp[i] + w.right[S.place[i]]; });
    fill(dzeta, S.m, [&](int j) { return dzeta[j] + w.right[S.place[S.n + j]]; });
}

// dp (n) and dv (m) by a.upper, a.lower and rho, (m), null for zero. Uses w.turned, w.scratch, w.right.
CVXFOLD_LONG void change_of_adjoint(const Shape &S, Workspace &w, AdjointVectors &a, const Pack *rho,
                                    Pack *dp, Pack *dv) {
    if (rho) {
        fill(w.turned, S.m, [&](int j) {
            return select(w.lambda[j] > 0.5, rho[j] / max(w.lambda[j], splat(0.5)), Value{});
        });
        out_of_frame(S, w.frame, w.turned, w.turned);
        add_A_transposed(S, w.A, w.turned, a.upper);
        fill(a.lower, S.m, [&](int j) {
            return a.lower[j] +
                   (select(w.lambda[j] > 0.5, Value{}, rho[j] / (max(w.E[j], splat(0.5)) * w.R[j])));
        });
    }
    gather(S, w.right, 0, a.upper, a.lower);
    solve_newton<1>(S, w);
    fill(dp, S.n, [&](int i) { return w.right[S.place[i]]; });
    fill(dv, S.m, [&](int j) { return w.right[S.place[S.n + j]]; });
    if (S.second_order) // of which a pair's small row counts for itself, and is smaller than delta
        refine_change(S, w, a, dp, dv);
    fill(dv, S.m, [&](int j) {
        Value change = w.E[j] * dv[j];
        if (rho)
            change -= select(w.lambda[j] > 0.5, rho[j] / max(w.lambda[j], splat(0.5)), Value{});
        return change;
    });
    out_of_frame(S, w.frame, dv, dv);
}

// What rounding leaves of a dual vector v (m) in own units, in the sum or difference of a rotated pair that
// is small, and that a parameter may have of it, is added to its change (m).
inline void add_rounding_of_pairs(const Shape &S, const Workspace &w, const Pack *v, Pack *change) {
    each_tilt(
        S, w, [](int, Value) {},
        [&](int at, Value h) {
            one_by_one([&] {
                const Value rounding = 2 * ROUNDING * max(abs(v[at]), abs(v[at + 1]));
                const Value side = select(abs(v[at] + v[at + 1]) < abs(v[at]), splat(1), splat(-1));
                const Value more = select(change[at] + side * change[at + 1] < 0.0, -rounding, rounding);
                change[at] += select(h == 1.0, Value{}, more);
                change[at + 1] += select(h == 1.0, Value{}, side * more);
            });
        });
}

// The relative error of the gradient on parameters that reach rotated pairs, where they feel the sum or
// difference that is small: entries by themselves do not tell that. At the adjoint in own units; x (n) and y
// (m) there. Uses w.step, w.Px, w.primal, w.parameters.
inline Value error_by_pairs(const Shape &S, const Layout &Y, Workspace &w, const DataGradient &at) {
    Pack *dx = w.step, *dy = dx + S.n, *dp = w.Px, *dv = w.primal;
    Layout of_A = Y; // q feels no y
    of_A.moving_q = of_A.moving_b = 0;
    const auto norm = [&](const Layout &by, const DataGradient &g) {
        pull_back(S, by, g, w.parameters);
        return sqrt(squared_norm(w.parameters, Y.entries));
    };
    clear(dx, S.n), clear(dp, S.n), clear(dy, S.m), clear(dv, S.m);
    const Value size = norm(Y, at);
    add_rounding_of_pairs(S, w, at.v, dv);
    const Value by_adjoint = norm(Y, {dp, dv, at.x, at.y});
    clear(dv, S.m);
    add_rounding_of_pairs(S, w, at.y, dy);
    return (by_adjoint + norm(of_A, {at.p, dv, dx, dy})) / max(size, splat(2.3e-308));
}

} // namespace cvxfold
