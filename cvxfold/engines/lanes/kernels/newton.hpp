// Regularized semismooth Newton in (x, u).
//
//     r1 = Px + q + A'y = 0     r2 = Ax + s - b = 0     s = Pi_K(u), y = R (s - u)
//
// With dy = Q E z and D = Q lambda Q' a step solves
//
//     [ P + sigma I   (E Q'A)'            ] [ dx ]     [  -r1      ]
//     [ E Q'A         -(lambda + delta)/R ] [ z  ]  =  [ -E Q'r2   ]
//
// and du = Q v with v = -z/(R E) where lambda <= 1/2, else -(Q'(r2 + A dx))/(lambda + delta).
//
// 1. Look at D where u has moved, and factor K.
// 2. Solve for the step.
// 3. Shorten it until |(r1, rho r2)| falls.
// 4. Where no length does, raise sigma and delta for that instance and repeat (Levenberg and Marquardt);
//    lower them after a success. Without curved cones, both in proportion to the residual, which keeps
//    convergence fast (Fan and Yuan, "On the quadratic convergence of the Levenberg-Marquardt method without
//    nonsingularity assumption", 2005).
// 5. An instance is done where the residual is rounding, and left where steps stay short.
#pragma once

#include "kkt.hpp"
#include "residual.hpp"

namespace cvxfold {

struct Progress {
    Value rho, size, regularization;
    Value iterations, newton_steps, factorizations;
    Value stuck; // 1 where Newton's method made no way, BOUND_IS_ACTIVE where a far bound is in the
                 // way, BY_ITSELF where the first pass has left it to the second
    Value age;   // passes that D and E have served
    Value off;   // about how far x is from the solution, relatively, where Newton's method has ended
    Value limit; // of far bounds, infinite where there are none
    Value cost;  // the root of the cost's scale
};

// Relative residuals: rounding, where rounding may begin, and where a step that does not help is the last
// one.
const double EXACT = 1e-14, NEARLY_EXACT = 1e-11, AT_ROUNDING = 1e-13;
const int PATIENCE = 3;       // elsewhere below NEARLY_EXACT so many in a row are
const double SHORTENED = 0.3; // a step's length against the last one tried
const int LENGTHS = 5;
const double POOR = 0.25;     // a step shorter than this is poor
const int MOST_POOR = 8;      // poor steps before an instance is left …
const double PROGRESS = 1e-4; // … unless the merit fell by this in all
const int FEW_POOR = 4;       // after so many it may be left, where a better method is at hand …
const int FEW_DEAR = 2;    // … so many, or one that no length serves, where each length takes eigenvectors …
const double NO_WAY = 0.8; // … and the merit has hardly fallen in all
const double FIRST_REGULARIZATION = 1e-4, MOST_REGULARIZATION = 2, RAISE = 100, LOWER = 0.1, SMALLEST = 1e-7;
const double RAISED_TO = 0.05, LOWERED_TO = 0.1; // times the relative residual, at least and at most
const double NEVER = 1e300;                      // times that, too large to count
const double A_PART = 1e-2;                      // of u, beside which x counts as nothing
const double KEEP_FACTOR = 1e-4;                 // of smooth cones, while a step lowers the merit by this

// du of a step (w.dx, z), with w.primal in the frame in w.turned. z: of a row.
template <typename Z> inline void step_of_state(const Shape &S, Workspace &w, Z z, Value delta) {
    multiply_A(S, w.A, w.dx, w.du);
    into_frame(S, w.frame, w.du, w.du);
    fill(w.du, S.m, [&](int j) {
        Value by_multiplier = -z(j) / (w.R[j] * max(w.E[j], splat(0.5)));
        Value by_slack = -(w.turned[j] + w.du[j]) / (w.lambda[j] + delta);
        return select(w.lambda[j] <= 0.5, by_multiplier, by_slack);
    });
    out_of_frame(S, w.frame, w.du, w.du);
}

// The step from w.dual and w.primal into w.dx and w.du.
CVXFOLD_LONG void newton_direction(const Shape &S, Workspace &w, Value delta) {
    into_frame(S, w.frame, w.primal, w.turned);
    change_at(w.right, S.place, 0, S.n, [&](int i, Value) { return -w.dual[i]; });
    change_at(w.right, S.place + S.n, 0, S.m, [&](int j, Value) { return -w.E[j] * w.turned[j]; });
    solve_newton<1>(S, w);
    fill(w.dx, S.n, [&](int i) { return w.right[S.place[i]]; });
    step_of_state(S, w, [&](int j) { return Value(w.right[S.place[S.n + j]]); }, delta);
}

// How long the step w.dx is beside x, or beside a part of u where x is nothing.
inline Value length_of_step(const Shape &S, const Workspace &w) {
    const Value size = max(infinity_norm(w.x, S.n), A_PART * infinity_norm(w.u, S.m));
    return infinity_norm(w.dx, S.n) / max(size, splat(2.3e-308));
}

// The lanes where that row of the orthant has changed sides since w.lambda.
inline Mask side_changed(const Workspace &w, int j) {
    return select(w.u[j] > 0.0, splat(1), Value{}) != w.lambda[j];
}

// The lanes where no row of the orthant has.
inline Mask same_sides(const Shape &S, const Workspace &w) {
    const auto change = [&](int j) { return select(side_changed(w, j), splat(1), Value{}); };
    return sum_of(S.zero, S.separable(), change) == 0.0;
}

// Whether an orthant's row of a lane of `mask` has changed sides since w.lambda.
inline bool orthant_changed(const Shape &S, const Workspace &w, Mask mask) {
    if constexpr (GROUP > 1) {
        return any(mask & ~same_sides(S, w));
    }
    for (int j = S.zero; j < S.separable(); j++)
        if (any(mask & side_changed(w, j)))
            return true;
    return false;
}

// Up to `most` steps for the lanes of `mask`, or as many as there is time for; returns those that are done.
// leaves_soon: whether another method serves where steps stay short from the beginning.
template <typename TimeLeft>
CVXFOLD_LONG Mask newton(const Shape &S, Workspace &w, Progress &progress, Mask mask, int most,
                         TimeLeft time_left, Least least = {}, bool leaves_soon = false) {
    const double raised_to = S.curved() ? 0 : RAISED_TO, lowered_to = S.curved() ? NEVER : LOWERED_TO;
    Residual now = residual_anew(S, w, progress.rho, mask);
    const Value merit_at_first = now.merit;
    Value poor{}, resting{}, fell = splat(1);
    Mask done = mask & (now.relative < EXACT), at_work = mask & ~done & finite(now.merit);
    Mask look_at = at_work, raised = none();
    bool first = true;
    for (int step = 0; step < most && any(at_work) && time_left(); step++) {
        look_at = first ? mask : S.curved() ? at_work & (fell > KEEP_FACTOR) : at_work; // 1
        if (first || any(raised) || (S.curved() ? any(look_at) : orthant_changed(S, w, at_work))) {
            look(S, w.roots, w.u, look_at, w.lambda, w.frame, nullptr);
            factor_newton(S, w, progress.regularization, least);
            progress.factorizations += select(at_work, splat(1), Value{});
            first = false;
        }
        progress.newton_steps += select(at_work, splat(1), Value{});
        newton_direction(S, w, max(progress.regularization, least.delta)); // 2
        fill(w.x_before, S.n, [&](int i) { return w.x[i]; });
        fill(w.u_before, S.m, [&](int j) { return w.u[j]; });
        Value length = splat(1), taken{}; // 3
        Mask seeking = at_work, stalled = none();
        Residual next = now;
        for (int attempt = 0; attempt < LENGTHS; attempt++) {
            fill(w.x, S.n, [&](int i) { return select(seeking, w.x_before[i] + length * w.dx[i], w.x[i]); });
            fill(w.u, S.m, [&](int j) { return select(seeking, w.u_before[j] + length * w.du[j], w.u[j]); });
            next = residual_anew(S, w, progress.rho, seeking);
            Mask lower = (next.merit < now.merit * 0.9999) | (next.relative < EXACT);
            taken = select(seeking & lower, length, taken);
            seeking &= ~lower;
            Mask at_rounding = seeking & (now.relative < NEARLY_EXACT);
            stalled |= at_rounding;
            seeking &= ~at_rounding;
            if (!any(seeking))
                break;
            length *= SHORTENED;
        }
        Mask back = seeking | stalled;
        if (any(back)) {
            fill(w.x, S.n, [&](int i) { return select(back, w.x_before[i], w.x[i]); });
            fill(w.u, S.m, [&](int j) { return select(back, w.u_before[j], w.u[j]); });
            next = residual_anew(S, w, progress.rho, back);
        }
        fell = select(at_work, next.merit / max(now.merit, splat(1e-300)), fell);
        Value old = progress.regularization; // 4
        Value grown = max(max(old * RAISE, splat(FIRST_REGULARIZATION)), raised_to * next.relative);
        Value less = select(old > SMALLEST, min(old * LOWER, lowered_to * next.relative), Value{});
        Value regularization = select(at_work, select(seeking, grown, less), old);
        raised = regularization != old;
        progress.regularization = regularization;
        poor += select(at_work & (taken < POOR), splat(1), Value{}); // 5
        Mask rounding = (next.relative < NEARLY_EXACT) & (stalled | (fell > 0.5));
        resting = select(rounding, resting + 1.0, Value{});
        rounding &= (resting >= (double)PATIENCE) | (next.relative < AT_ROUNDING);
        Mask finished = at_work & ((next.relative < EXACT) | rounding);
        done |= finished;
        if (any(finished)) { // where steps converge, what is left of x falls as the residual does
            const Value left = select(taken == 1.0, min(fell, splat(1)), splat(1)) * length_of_step(S, w);
            progress.off = select(finished, left, progress.off);
        }
        Mask hopeful = (poor < (double)MOST_POOR) | (next.merit < PROGRESS * merit_at_first);
        if (leaves_soon) {
            const Mask goes = S.semidefinite ? ~seeking & (poor < (double)FEW_DEAR) : poor < (double)FEW_POOR;
            hopeful &= goes | (next.merit < NO_WAY * merit_at_first);
        }
        const Mask stuck = at_work & ~finished & ~((regularization < MOST_REGULARIZATION) & hopeful);
        progress.stuck = select(stuck, splat(1), progress.stuck);
        at_work &= ~finished & ~stuck;
        now = next;
    }
    return done;
}

} // namespace cvxfold
