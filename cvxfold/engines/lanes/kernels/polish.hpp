// What a pack's instances have come to, and Newton steps for those that may be far off all the same.
//
// A residual below the tolerance does not say that x is near: where K is badly conditioned, large changes of
// x leave it small, and steps that are regularized go a small part of the way. Rounding that the criterion
// leaves aside may be much in a row whose own terms are nearly nothing. So what counts is how long a step is.
//
// 1. Judge. An instance is settled where the residual is rounding, row by row, and Newton's method ended
//    with short steps.
// 2. Others take further steps: regularized as usual and hardly at all in turns, the latter refined against
//    the exact system, since the factor is inexact then.
// 3. A step as usual that does not help is taken back. One that is hardly regularized may be so long that
//    the residual rises first: the next step decides about both.
// 4. An instance is left when both kinds do not help.
// 5. One whose last steps are long beside x is not solved, whatever the residual. Of those that are hardly
//    regularized this holds where the residual is more than rounding, which they magnify if K is singular; so
//    it does of the next one, where they help, but slowly.
#pragma once

#include "forward.hpp"

namespace cvxfold {

const int MOST_POLISHED = 12, REFINEMENTS = 2;
const double POLISHED = 1e-12; // of what is held against the tolerance, whatever that is
const double BARE = 1e-3;      // of the worst row, likewise
const double AT_REST = 1e-8;   // a step's length beside x
const double FAR_OFF = 1e-6;   // that of one beyond which nothing is said to be solved, at least
const double TOLERANCES = 100; // likewise, in tolerances

// What lanes have come to, at what `residual` found; a status that a certificate gave stays.
CVXFOLD_LONG void judge(const Shape &S, const Settings &O, Workspace &w, const Progress &progress,
                        Ended &ended) {
    ended.measured = measure(S, w, progress.size);
    ended.tested = number_tested(S, O, w, ended.measured, progress.size);
    Mask proven = ended.status >= splat(INFEASIBLE);
    Value reached = select(ended.tested.number <= tolerance(O), splat(SOLVED), splat(UNCONVERGED));
    ended.status = select(proven, ended.status, reached);
}

// What is to be rounding.
inline Value left_of(const Ended &ended) { return largest(ended.tested.number, BARE * ended.tested.bare); }

// Adds to the step (w.dx, z) what its remainder in the exact system asks for. z: (m); upper: (n), lower: (m).
CVXFOLD_LONG void refine_step(const Shape &S, Workspace &w, Pack *z, Pack *upper, Pack *lower) {
    fill(w.turned, S.m, [&](int j) { return w.E[j] * z[j]; });
    out_of_frame(S, w.frame, w.turned, w.turned);
    multiply_P(S, w.P, w.dx, upper);
    add_A_transposed(S, w.A, w.turned, upper);
    fill(upper, S.n, [&](int i) { return -w.dual[i] - upper[i]; });
    multiply_A(S, w.A, w.dx, lower);
    fill(lower, S.m, [&](int j) { return lower[j] + w.primal[j]; });
    into_frame(S, w.frame, lower, lower);
    fill(lower, S.m, [&](int j) { return w.lambda[j] / w.R[j] * z[j] - w.E[j] * lower[j]; });
    gather(S, w.right, 0, upper, lower);
    solve_newton<1>(S, w);
    fill(w.dx, S.n, [&](int i) { return w.dx[i] + w.right[S.place[i]]; });
    fill(z, S.m, [&](int j) { return z[j] + w.right[S.place[S.n + j]]; });
}

// The step from w.dual and w.primal into w.dx and w.du, refined where `refined`. Uses w.adjoint.
inline void polishing_step(const Shape &S, Workspace &w, Value delta, bool refined) {
    newton_direction(S, w, delta);
    if (!refined)
        return;
    Pack *z = w.adjoint, *upper = z + S.m, *lower = upper + S.n;
    fill(z, S.m, [&](int j) { return w.right[S.place[S.n + j]]; });
    for (int time = 0; time < REFINEMENTS; time++)
        refine_step(S, w, z, upper, lower);
    into_frame(S, w.frame, w.primal, w.turned);
    step_of_state(S, w, [&](int j) { return Value(z[j]); }, delta);
}

// Judges and polishes the lanes of `mask`. at_residual: whether the last residuals are those of the point.
CVXFOLD_LONG void judge_and_polish(const Shape &S, const Settings &O, Workspace &w, Progress &progress,
                                   Mask mask, bool at_residual, Ended &ended) {
    const auto judge_anew = [&] {
        residual(S, w, progress.rho);
        judge(S, O, w, progress, ended);
    };
    if (!at_residual)
        residual(S, w, progress.rho);
    judge(S, O, w, progress, ended); // 1
    Value least_left = left_of(ended), off = progress.off, bold{}, next{};
    Mask tentative = none(), helped = all();
    const auto go_back = [&](Mask back) {
        fill(w.x, S.n, [&](int i) { return select(back, w.x_before[i], w.x[i]); });
        fill(w.u, S.m, [&](int j) { return select(back, w.u_before[j], w.u[j]); });
        judge_anew();
    };
    const Mask asked = mask;
    for (int step = 0; O.refine && step < MOST_POLISHED; step++) { // 2
        const Mask settled = (least_left <= splat(POLISHED)) & (off <= splat(AT_REST));
        mask &= (ended.status <= splat(UNCONVERGED)) & ~settled;
        if (!any(mask))
            break;
        const bool usual = step % 2 == 0;
        const Least least = usual ? Least{} : hardly_any();
        look(S, w.roots, w.u, mask, w.lambda, w.frame, nullptr);
        factor_newton(S, w, Value{}, least);
        polishing_step(S, w, least.delta, !usual);
        progress.newton_steps += select(mask, splat(1), Value{});
        progress.factorizations += select(mask, splat(1), Value{});
        const Value length = length_of_step(S, w);
        fill(w.x_before, S.n, [&](int i) { return select(tentative, w.x_before[i], w.x[i]); });
        fill(w.u_before, S.m, [&](int j) { return select(tentative, w.u_before[j], w.u[j]); });
        fill(w.x, S.n, [&](int i) { return select(mask, w.x[i] + w.dx[i], w.x[i]); });
        fill(w.u, S.m, [&](int j) { return select(mask, w.u[j] + w.du[j], w.u[j]); });
        judge_anew();
        const Value left = left_of(ended);
        const Mask better = mask & ((left < least_left) | (left <= splat(POLISHED))); // 3
        if (usual) {
            const Mask back = mask & ~better;
            const Value rest = select(left < least_left, length * (left / least_left), length);
            off = select(mask & (better | ~tentative), rest, off);
            if (any(back))
                go_back(back);
            const Mask in_vain = back & ~helped; // 4
            off = select(in_vain & (least_left > splat(POLISHED)), largest(off, bold), off);
            mask &= ~in_vain;
            tentative = none();
        } else {
            tentative = mask & ~better;
            bold = select(mask, length, bold);
            next = select(mask, select(better, length * (left / least_left), Value{}), next);
        }
        helped = better;
        least_left = select(better, left, least_left);
    }
    if (any(tentative))
        go_back(tentative);
    off = select(least_left > splat(POLISHED), largest(off, next), off); // 5
    const double most = FAR_OFF > TOLERANCES * tolerance(O) ? FAR_OFF : TOLERANCES * tolerance(O);
    const Mask far = asked & (ended.status == splat(SOLVED)) & (off > splat(O.refine ? most : infinite()));
    ended.status = select(far, splat(UNCONVERGED), ended.status);
}

} // namespace cvxfold
