// Newton's method on cones that are tilted (tilt.hpp): which instances ask for it, and how it goes.
#pragma once

#include "chosen.hpp"
#include "homogeneous.hpp"
#include "polish.hpp"
#include "rounding.hpp"
#include "writing.hpp"

namespace cvxfold {

const int TILTS = 3;          // rounds of the interior-point method and of what it tilts
const double TO_REST = 1e-11; // of what is held against the tolerance: tilted cones may hide more
const double TOLD = 1e-4;     // of q and P x, or of b
const double FAR_APART = 4;   // of Progress::stuck: cones are to be tilted
const double RATIO = 8000, SQUARED_RATIO = 1e7, NO_RATIO = 1e24; // of a cone's rows that are far apart
const double COUNTS = 0.01;                                      // of the largest product s_j y_j, or q_i x_i

struct Tilting : Writing {
    using Writing::Writing;

    // The same in the lanes of `mask` by cones tilted at the points s and y (m) in own units, with matrices
    // of their own; s and y become tilted.
    void load_tilted(Workspace &w, const int *instances, Pack *s, Pack *y, Mask mask, Scale &scale) const {
        load_parameters(w, instances);
        if (call.shared)
            serve(w.apart, w);
        apply(Y.P, S.nnz_P, w.parameters, w.P);
        apply(Y.A, S.nnz_A, w.parameters, w.A);
        set_tilt(S, w, s, y, mask);
        tilt_A(S, w, w.A);
        equilibrate(S, w, none());
        apply(Y.q, S.n, w.parameters, w.q);
        apply(Y.b, S.m, w.parameters, w.b);
        scale = scale_vectors(S, w, none());
    }

    // The lanes of `mask` where a cone's rows are far apart at w.u, and the cone counts: what s and y have in
    // common, s_j y_j, is as large as elsewhere. (Where a cone tells a probability that is small it is not.)
    Mask far_apart(const Workspace &w, Mask mask) const {
        if (!S.may_tilt() || !O.refine || !any(mask))
            return none();
        Value largest = largest_of(0, S.n, [&](int i) { return abs(w.q[i] * w.x[i]); });
        const int in_R3 = exponential_rows_begin(S), count = S.exponential + S.power;
        const auto product = [&](int c) { return abs(w.s[in_R3 + 3 * c + 2] * w.y[in_R3 + 3 * c + 2]); };
        largest = max(largest, largest_of(0, count, product));
        Value most = largest_of(0, count, [&](int c) {
            const Pack *two = w.s + in_R3 + 3 * c + (c < S.exponential ? 1 : 0); // rows that may be far apart
            const Value one = abs(two[0]), other = abs(two[1]);
            return select((one > RATIO * other) | (other > RATIO * one), product(c), Value{});
        });
        each_pair(S, w, [&](int at, int size, const second_order::Pair &pair) {
            const Value side = w.s[at] + abs(w.s[at + 1]), of_pair = 0.5 * abs(side * pair.y);
            const Mask apart = (side > SQUARED_RATIO * pair.s) & (side < NO_RATIO * pair.s);
            largest = max(largest, of_pair);
            if (size > 2 && any(mask & apart))
                most = select(apart & is_product(S, w, at), max(most, of_pair), most);
        });
        return mask & (most > COUNTS * largest) & (largest > 0.0);
    }

    // Whether q and b say that a point is a solution. What is left of a residual may be rounding of terms
    // that cancel, next to which they are nothing: a direction along which there is no solution looks the
    // same.
    //
    // 1. What is left of an entry of the dual residual, with the rounding of what was added up, is little
    //    beside q and P x there, where q has an entry.
    // 2. What is left of a cone's rows, likewise, beside the largest of b there.
    // 3. The point is no certificate: of numbers next to which no datum counts, such a point is made.
    //
    // Uses w.du, w.turned, w.scratch.
    Mask is_told(Workspace &w) const {
        Pack *columns = w.scratch, *rows = w.du; // |A|'|y|, and |A||x| + |s|
        clear(columns, S.n);
        add_terms_of_A_transposed(S, w.A, w.y, columns);
        for (int j = 0; j < S.m; j++)
            set(rows[j], sum_over_row(w.A, w.x, S.A_column, S.A_start[j], S.A_start[j + 1], abs(w.s[j]),
                                      [](auto a, auto x, auto sum) { return sum + abs(a * x); }));
        Value untold = largest_of(0, S.n, [&](int i) { // 1
            const Value left = abs(w.dual[i]) + ROUNDING * columns[i];
            return select(w.q[i] == 0.0, Value{}, over(left, max(abs(w.q[i]), abs(w.Px[i]))));
        });
        const auto left_of_row = [&](int j) { return abs(w.primal[j]) + ROUNDING * rows[j]; }; // 2
        const auto beside_b = [](Value left, Value b) { return select(b == 0.0, Value{}, over(left, b)); };
        untold = max(untold, largest_of(0, S.separable(),
                                        [&](int j) { return beside_b(left_of_row(j), abs(w.b[j])); }));
        for (int cone = 0, at = S.separable(); at < S.m; at += S.rows_of(cone++)) {
            const Value left = largest_of(at, at + S.rows_of(cone), left_of_row);
            untold = max(untold, beside_b(left, infinity_norm(w.b + at, S.rows_of(cone))));
        }
        const Mask told = untold <= TOLD;
        const Mask no_bound =
            proves_no_bound(S, w, w.x, unboundedness(S, w, w.x), told, O.eps_infeasible); // 3
        fill(w.du, S.m, [&](int j) { return w.y[j]; });
        const Mask no_point = proves_no_point(S, w, w.du, infeasibility(S, w, w.du), told, O.eps_infeasible);
        return told & ~no_bound & ~no_point;
    }

    // A last step of Newton's method for the lanes of `mask`, where the residual stays rounding: of cones
    // that are small beside others, what is rounding there may be much.
    void step_once_more(Workspace &w, Progress &progress, Mask mask) const {
        if (!any(mask))
            return;
        const Least least = hardly_any();
        const Value before = residual(S, w, progress.rho).relative;
        look(S, w.roots, w.u, mask, w.lambda, w.frame, nullptr);
        factor_newton(S, w, Value{}, least);
        polishing_step(S, w, least.delta, true);
        fill(w.x_before, S.n, [&](int i) { return w.x[i]; });
        fill(w.u_before, S.m, [&](int j) { return w.u[j]; });
        fill(w.x, S.n, [&](int i) { return select(mask, w.x[i] + w.dx[i], w.x[i]); });
        fill(w.u, S.m, [&](int j) { return select(mask, w.u[j] + w.du[j], w.u[j]); });
        const Mask back = ~(residual(S, w, progress.rho).relative <= max(before, splat(EXACT)));
        fill(w.x, S.n, [&](int i) { return select(back, w.x_before[i], w.x[i]); });
        fill(w.u, S.m, [&](int j) { return select(back, w.u_before[j], w.u[j]); });
        progress.newton_steps += select(mask, splat(1), Value{});
        progress.factorizations += select(mask, splat(1), Value{});
    }

    // What the interior-point method solves, whose point says how to tilt cones, and then Newton's method on
    // these. Returns the lanes that are done, and counts in `bad` those that are not solved.
    template <typename TimeLeft>
    Mask by_tilt(Workspace &w, const Chosen &chosen, Mask asked, int &bad, TimeLeft time_left) const {
        const int *instances = chosen.instance;
        const Matrices given = {w.P, w.A, w.columns, w.rows};
        Pack *x = w.own, *y = x + S.n, *s = y + S.m;
        Scale scale;
        load(w, instances, none(), scale);
        Progress progress = where_it_ended(w, instances, scale);
        set_penalty(S, w, progress.rho);
        reset(S, w.roots);
        Mask done = ~asked;
        for (int round = 0; round < TILTS && any(~done) && time_left(); round++) {
            const Mask open = ~done;
            const Mask found = homogeneous_interior_point(S, w, progress, open, hardly_any(), time_left);
            points_in_own_units(S, w, scale.size);
            load_tilted(w, instances, s, y, open, scale);
            progress.size = scale.size, progress.limit = scale.limit, progress.cost = scale.cost;
            progress.stuck = progress.regularization = Value{};
            set_penalty(S, w, progress.rho);
            reset(S, w.roots);
            fill(w.x, S.n, [&](int i) { return x[i] / (w.columns[i] * scale.size); });
            fill(w.s, S.m, [&](int j) { return s[j] * w.rows[j] / scale.size; });
            fill(w.y, S.m, [&](int j) { return y[j] / (w.rows[j] * scale.size); });
            fill(w.u, S.m, [&](int j) { return w.s[j] - w.y[j] / w.R[j]; });
            Mask now = newton(S, w, progress, found, NEWTON_STEPS, time_left, hardly_any());
            step_once_more(w, progress, now);
            Ended ended = not_yet();
            judge_and_polish(S, O, w, progress, now, false, ended);
            now &= (ended.status == splat(SOLVED)) & (left_of(ended) <= TO_REST) & is_told(w);
            progress.age = splat(not_a_number()); // D and E are of no use to others
            points_in_own_units(S, w, scale.size);
            for (int lane = 0; lane < chosen.count; lane++)
                if (now[lane]) {
                    Block kept = block_of(instances[lane]);
                    kept.keep_point(S, instances[lane] % W, w, progress, lane);
                    kept.keep_tilted(S, instances[lane] % W, w, lane);
                    bad += write(w, progress, ended, lane, instances[lane], true);
                }
            done |= now;
        }
        serve(given, w);
        return done & asked;
    }
};

} // namespace cvxfold
