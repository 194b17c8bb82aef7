// The forward pass of one pack of instances, in equilibrated units.
//
// 1. A few applications of F.
// 2. Newton's method: where most instances end.
// 3. What is left, in packs of its own so that nobody waits for it: more Newton steps; the interior-point
//    method and Newton again, the second time with hardly any regularization; longer and longer rounds of F
//    under a penalty that balances the residuals, each followed by Newton, their last steps tested as proofs
//    that there is no solution.
//
// Without refinement, F alone in both passes (first_order.hpp).
#pragma once

#include "certificate.hpp"
#include "criterion.hpp"
#include "first_order.hpp"
#include "interior.hpp"
#include "newton.hpp"
#include "splitting.hpp"

namespace cvxfold {

enum Status { SOLVED, UNCONVERGED, INFEASIBLE, UNBOUNDED, INVALID };

const int FIRST_ITERATIONS = 10, FIRST_NEWTON_STEPS = 15, NEWTON_STEPS = 50;
const int MOST_BY_F = 2500; // without refinement
const int MOST_POLISHED = 12;
const double POLISHED = 1e-12;              // of what is held against the tolerance, whatever that is
const int ROUND = 60, LONGEST_ROUND = 1000; // applications of F between finishes, doubled each time

// What is known of the instances of a pack when it is done.
struct Ended {
    Value status, certificate;
    Residual residual;
    Measured measured;
    Value tested; // against the tolerance
};

inline double tolerance(const Settings &O) { return O.eps_abs > O.eps_rel ? O.eps_abs : O.eps_rel; }

// What is held against the tolerance, at what `residual` and `measure` found: in SCS's definitions where
// nothing is to be refined.
inline Value number_tested(const Shape &S, const Settings &O, Workspace &w, const Measured &m, Value size) {
    const double eps = tolerance(O);
    if (O.refine)
        return tested(S, w, m, size, eps);
    Value most = eps * m.primal / (O.eps_abs + O.eps_rel * m.primal_terms);
    most = largest(most, eps * m.dual / (O.eps_abs + O.eps_rel * m.dual_terms));
    return largest(most, eps * m.gap / (O.eps_abs + O.eps_rel * m.gap_terms));
}

// At what `residual` found.
CVXFOLD_LONG Mask is_solved(const Shape &S, const Settings &O, Workspace &w, const Progress &progress) {
    return number_tested(S, O, w, measure(S, w, progress.size), progress.size) <= tolerance(O);
}

inline Progress at_first(Value rho, Value size) {
    return {rho, size, Value{}, Value{}, Value{}, Value{}, Value{}, Value{}};
}

// 1 and 2, for the lanes of `mask`; `warm` lanes have a point to start from. Returns those that are done.
template <typename TimeLeft>
inline Mask first_pass(const Shape &S, const Settings &O, Workspace &w, Progress &progress, Mask mask,
                       Mask warm, bool splitting_is_factored, TimeLeft time_left) {
    fill(w.x, S.n, [&](int i) { return select(warm, w.x[i], Value{}); });
    fill(w.u, S.m, [&](int j) { return select(warm, w.u[j], Value{}); });
    reset(S, w.roots);
    const Mask cold = mask & ~warm, iterated = O.refine ? cold : mask;
    if (any(iterated) && time_left()) {
        if (!splitting_is_factored) {
            factor_splitting(S, w, w.splitting);
            progress.factorizations += select(iterated, splat(1), Value{});
        }
        if (!O.refine)
            return first_order(
                S, O, w, progress, mask, warm, FIRST_CHECKS, false,
                [&] { return is_solved(S, O, w, progress); }, [](Mask) { return none(); }, time_left);
        const int count = FIRST_ITERATIONS < O.max_iters ? FIRST_ITERATIONS : O.max_iters;
        const int made = iterate(S, w, w.splitting, O.relaxation, cold, count, time_left);
        progress.iterations += select(cold, splat(made), Value{});
    }
    return newton(S, w, progress, mask, FIRST_NEWTON_STEPS, time_left);
}

// Tests the last step of F from (x_kept, u_kept) as a certificate.
CVXFOLD_LONG void certify_step(const Shape &S, const Settings &O, Workspace &w, Mask mask, Ended &ended) {
    decompose(S, w, w.u_kept);
    fill(w.du, S.m, [&](int j) { return w.y[j]; });
    decompose(S, w, w.u);
    fill(w.du, S.m, [&](int j) { return w.y[j] - w.du[j]; });
    fill(w.dx, S.n, [&](int i) { return w.x[i] - w.x_kept[i]; });
    Value infeasible = infeasibility(S, w, w.du), unbounded = unboundedness(S, w, w.dx);
    Mask no_point = mask & (infeasible <= O.eps_infeasible);
    if (any(no_point))
        no_point &= excludes_all(S, w, w.du) <= BY_SCALE;
    Mask no_bound = mask & ~no_point & (unbounded <= O.eps_infeasible);
    if (any(no_bound))
        no_bound &= falls_forever(S, w, w.dx) <= BY_SCALE;
    ended.status = select(no_point, splat(INFEASIBLE), select(no_bound, splat(UNBOUNDED), ended.status));
    ended.certificate = select(no_point, infeasible, select(no_bound, unbounded, ended.certificate));
}

// 3 without refinement.
template <typename TimeLeft>
inline Mask second_pass_by_F(const Shape &S, const Settings &O, Workspace &w, Progress &progress, Mask mask,
                             Ended &ended, TimeLeft time_left) {
    factor_splitting(S, w, w.splitting);
    progress.factorizations += select(mask, splat(1), Value{});
    Settings rest = O;
    rest.max_iters = (O.max_iters < MOST_BY_F ? O.max_iters : MOST_BY_F) - FIRST_CHECKS * BETWEEN_CHECKS;
    const auto certify = [&](Mask open) {
        certify_step(S, O, w, open, ended);
        return open & (ended.status != splat(UNCONVERGED));
    };
    return first_order(
        S, rest, w, progress, mask, none(), rest.max_iters / BETWEEN_CHECKS + 1, true,
        [&] { return is_solved(S, O, w, progress); }, certify, time_left);
}

// 3, for the lanes of `mask`, from where the first pass left them; the splitting's factor is w.splitting's
// own.
template <typename TimeLeft>
inline Mask second_pass(const Shape &S, const Settings &O, Workspace &w, Progress &progress, Mask mask,
                        Ended &ended, TimeLeft time_left) {
    if (!O.refine)
        return second_pass_by_F(S, O, w, progress, mask, ended, time_left);
    Mask done = newton(S, w, progress, mask & (progress.stuck == 0.0), NEWTON_STEPS, time_left);
    Mask open = mask & ~done;
    const Least tried[] = {{}, hardly_any()};
    for (Least least : tried) {
        if (!any(open) || !interior_serves(S) || !time_left())
            break;
        interior_point(S, w, progress, open, least, time_left);
        progress.regularization = select(open, Value{}, progress.regularization);
        done |= newton(S, w, progress, open, NEWTON_STEPS, time_left, least);
        open &= ~done;
    }
    int total = FIRST_ITERATIONS;
    for (int round = ROUND; any(open) && round <= LONGEST_ROUND && total + round <= O.max_iters; round *= 2) {
        if (!time_left())
            break;
        if (round == ROUND) { // Newton's method may have gone astray
            fill(w.x, S.n, [&](int i) { return select(open, Value{}, w.x[i]); });
            fill(w.u, S.m, [&](int j) { return select(open, Value{}, w.u[j]); });
        } else if (!O.penalty_is_fixed) {
            rebalance(S, w, open, progress.rho);
        }
        factor_splitting(S, w, w.splitting);
        progress.factorizations += select(open, splat(1), Value{});
        int made = iterate(S, w, w.splitting, O.relaxation, open, round - 1, time_left);
        fill(w.x_kept, S.n, [&](int i) { return w.x[i]; });
        fill(w.u_kept, S.m, [&](int j) { return w.u[j]; });
        made += iterate(S, w, w.splitting, O.relaxation, open, 1, time_left);
        total += round;
        progress.iterations += select(open, splat(made), Value{});
        if (!time_left())
            break;
        certify_step(S, O, w, open, ended);
        open &= ended.status == splat(UNCONVERGED);
        fill(w.x_kept, S.n, [&](int i) { return w.x[i]; });
        fill(w.u_kept, S.m, [&](int j) { return w.u[j]; });
        progress.regularization = select(open, Value{}, progress.regularization);
        Mask now = newton(S, w, progress, open, NEWTON_STEPS, time_left);
        done |= now;
        open &= ~now;
        // F goes on from its own point.
        fill(w.x, S.n, [&](int i) { return select(open, w.x_kept[i], w.x[i]); });
        fill(w.u, S.m, [&](int j) { return select(open, w.u_kept[j], w.u[j]); });
    }
    return done;
}

// What the lanes have come to; a status that a certificate gave stays.
CVXFOLD_LONG void judge(const Shape &S, const Settings &O, Workspace &w, const Progress &progress,
                        Ended &ended) {
    ended.residual = residual(S, w, progress.rho);
    ended.measured = measure(S, w, progress.size);
    ended.tested = number_tested(S, O, w, ended.measured, progress.size);
    Mask proven = ended.status >= splat(INFEASIBLE);
    Value reached = select(ended.tested <= tolerance(O), splat(SOLVED), splat(UNCONVERGED));
    ended.status = select(proven, ended.status, reached);
}

// Judges, and takes further Newton steps for the lanes of `mask` that are at rounding but not solved, or only
// just: where a row's own terms are nearly nothing, the rounding of others may be much in it, and solutions
// that are badly conditioned are far off at residuals a little below the tolerance. Steps are regularized as
// usual and hardly at all in turns; one that does not help is taken back, and two in a row are the last.
CVXFOLD_LONG void judge_and_polish(const Shape &S, const Settings &O, Workspace &w, Progress &progress,
                                   Mask mask, Ended &ended) {
    judge(S, O, w, progress, ended);
    Mask idle = none();
    for (int step = 0; O.refine && step < MOST_POLISHED; step++) {
        mask &= (ended.status <= splat(UNCONVERGED)) & ~(ended.tested <= splat(POLISHED));
        if (!any(mask))
            return;
        look(S, w.roots, w.u, mask, w.lambda, w.frame, nullptr);
        const Least least = step % 2 ? hardly_any() : Least{};
        factor_newton(S, w, Value{}, least);
        newton_direction(S, w, least.delta);
        progress.newton_steps += select(mask, splat(1), Value{});
        progress.factorizations += select(mask, splat(1), Value{});
        fill(w.x_before, S.n, [&](int i) { return w.x[i]; });
        fill(w.u_before, S.m, [&](int j) { return w.u[j]; });
        fill(w.x, S.n, [&](int i) { return select(mask, w.x[i] + w.dx[i], w.x[i]); });
        fill(w.u, S.m, [&](int j) { return select(mask, w.u[j] + w.du[j], w.u[j]); });
        const Value before = ended.tested;
        judge(S, O, w, progress, ended);
        const Mask back = mask & ~(ended.tested < before);
        if (any(back)) {
            fill(w.x, S.n, [&](int i) { return select(back, w.x_before[i], w.x[i]); });
            fill(w.u, S.m, [&](int j) { return select(back, w.u_before[j], w.u[j]); });
            judge(S, O, w, progress, ended);
        }
        mask &= ~(back & idle);
        idle = back;
    }
}

} // namespace cvxfold
