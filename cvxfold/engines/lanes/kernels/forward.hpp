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
const int FURTHER_ITERATIONS = 10, LAST_LOOK = 3; // where the last ones still moved the active set
const int FEW_ITERATIONS = 2;                     // with exponential cones, where F has no active set to find
const int MOST_BY_F = 2500;                       // without refinement
const double STEP_ROUNDING = 1e-13;         // of the largest entry of x or R u, what a step of F may be off
const int ROUND = 60, LONGEST_ROUND = 1000; // applications of F between finishes, doubled each time

// What is known of the instances of a pack when it is done.
struct Ended {
    Value status, certificate;
    Measured measured;
    Tested tested;
};

inline double tolerance(const Settings &O) { return O.eps_abs > O.eps_rel ? O.eps_abs : O.eps_rel; }

// What is held against the tolerance, at what `residual` and `measure` found: in SCS's definitions where
// nothing is to be refined.
inline Tested number_tested(const Shape &S, const Settings &O, Workspace &w, const Measured &m, Value size) {
    const double eps = tolerance(O);
    if (O.refine)
        return tested(S, w, m, size, eps);
    Value most = eps * m.primal / (O.eps_abs + O.eps_rel * m.primal_terms);
    most = largest(most, eps * m.dual / (O.eps_abs + O.eps_rel * m.dual_terms));
    return {largest(most, eps * m.gap / (O.eps_abs + O.eps_rel * m.gap_terms)), Value{}};
}

// At what `residual` found.
CVXFOLD_LONG Mask is_solved(const Shape &S, const Settings &O, Workspace &w, const Progress &progress) {
    return number_tested(S, O, w, measure(S, w, progress.size), progress.size).number <= tolerance(O);
}

inline Progress at_first(Value rho, Scale scale) {
    return {rho,     scale.size, Value{}, Value{},     Value{},   Value{},
            Value{}, Value{},    Value{}, scale.limit, scale.cost};
}

// Half the way from a relaxation to 2: ahead of Newton's method F need not converge, but find the active set.
inline double further(double relaxation) { return 0.5 * (relaxation + 2); }

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
        const bool many = !S.curved() && S.dear;
        const int count = least(S.exponential ? FEW_ITERATIONS : FIRST_ITERATIONS, O.max_iters);
        const double far = many ? further(further(O.relaxation)) : further(O.relaxation);
        const double relaxation = S.exponential ? O.relaxation : far;
        const auto apply_F = [&](Mask lanes, int times) {
            const int made = iterate(S, w, w.splitting, relaxation, lanes, times, time_left, true);
            progress.iterations += select(lanes, splat(made), Value{});
        };
        const int last = many ? least(LAST_LOOK, count) : 0;
        apply_F(cold, count - last);
        if (many) {
            fill(w.lambda, S.m, [&](int j) { return select(w.u[j] > 0.0, splat(1), Value{}); });
            apply_F(cold, last);
            const Mask moving = cold & ~same_sides(S, w);
            if (any(moving))
                apply_F(moving, least(FURTHER_ITERATIONS, O.max_iters - count));
        }
    }
    return newton(S, w, progress, mask, FIRST_NEWTON_STEPS, time_left, {}, interior_serves(S));
}

// Tests the last step of F from (x_kept, u_kept) as a certificate; one that is no more than the rounding of
// its points proves nothing.
CVXFOLD_LONG void certify_step(const Shape &S, const Settings &O, Workspace &w, Mask mask, Ended &ended) {
    decompose(S, w, w.u_kept);
    fill(w.du, S.m, [&](int j) { return w.y[j]; });
    decompose(S, w, w.u);
    fill(w.du, S.m, [&](int j) { return w.y[j] - w.du[j]; });
    fill(w.dx, S.n, [&](int i) { return w.x[i] - w.x_kept[i]; });
    const Value of_y = largest_of(0, S.m, [&](int j) { return abs(w.R[j] * w.u[j]); });
    const Mask moves_y = infinity_norm(w.du, S.m) > STEP_ROUNDING * of_y;
    const Mask moves_x = infinity_norm(w.dx, S.n) > STEP_ROUNDING * infinity_norm(w.x, S.n);
    Value infeasible = select(moves_y, infeasibility(S, w, w.du), splat(infinite()));
    Value unbounded = select(moves_x, unboundedness(S, w, w.dx), splat(infinite()));
    const Mask no_point = proves_no_point(S, w, w.du, infeasible, mask, O.eps_infeasible);
    const Mask no_bound = proves_no_bound(S, w, w.dx, unbounded, mask & ~no_point, O.eps_infeasible);
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

// 3, for the lanes of `mask`, from where the first pass left them; those that are `tried` are iterated on at
// once, and those that are `brief` are not. The splitting's factor is w.splitting's own.
template <typename TimeLeft>
inline Mask second_pass(const Shape &S, const Settings &O, Workspace &w, Progress &progress, Mask mask,
                        Mask tried, Mask brief, Ended &ended, TimeLeft time_left) {
    if (!O.refine)
        return second_pass_by_F(S, O, w, progress, mask, ended, time_left);
    Mask done = newton(S, w, progress, mask & ~tried & (progress.stuck == 0.0), NEWTON_STEPS, time_left);
    Mask open = mask & ~tried & ~done;
    const Least regularized[] = {{}, hardly_any()};
    for (Least least : regularized) {
        if (!any(open) || !interior_serves(S) || !time_left())
            break;
        interior_point(S, w, progress, open, least, time_left);
        progress.regularization = select(open, Value{}, progress.regularization);
        done |= newton(S, w, progress, open, NEWTON_STEPS, time_left, least);
        open &= ~done;
    }
    open = mask & ~done & ~brief;
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

} // namespace cvxfold
