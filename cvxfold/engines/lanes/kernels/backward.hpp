// From loss gradients on a pack's solutions to its adjoint, the error of the gradient, and the adjoint in the
// program's own units.
#pragma once

#include "change.hpp"

namespace cvxfold {

// As cvxfold.gradient.diagnosis has them.
const double SIDES_AGREE = 1e-5, ASIDE = 4, SIDES[] = {1.0, -1.0};
const double FAINT = 1e-6;
const double CANCELS = 1e-10, SAFETY = 10; // as cvxfold.gradient.screen has them
const double TURNS_FAST = 1e-8;            // what the step is said to change, relatively, before it is taken
const double SIDES_DIFFER = 1e-2;          // beyond this no smooth change could be meant

// p (n) and v (m) of what counts as the size of a gradient whose terms cancel: p = x_bar/diag(M), v = R (|A
// p| + |y_bar|), with M = P + A'R A: the gradient of the splitting's first step, M taken by its diagonal.
// Returns their squared norm. Uses w.scratch.
inline Value first_step(const Shape &S, Workspace &w, const Pack *x_bar, const Pack *y_bar, Pack *p,
                        Pack *v) {
    Pack *diagonal = w.scratch;
    fill(diagonal, S.n, [&](int) { return splat(SIGMA); });
    one_by_one([&] {
        for (int e = 0; e < S.nnz_P; e++)
            if (S.P_row[e] == S.P_column[e])
                diagonal[S.P_row[e]] += w.P[e];
    });
    for (int j = 0; j < S.m; j++) {
        const Value R = w.R[j];
        change_row(diagonal, S.A_column, S.A_start[j], S.A_start[j + 1],
                   [&](int e, Value sum) { return sum + R * w.A[e] * w.A[e]; });
    }
    fill(p, S.n, [&](int i) { return x_bar[i] / diagonal[i]; });
    multiply_A(S, w.A, p, v);
    fill(v, S.m, [&](int j) { return w.R[j] * (abs(v[j]) + abs(y_bar[j])) * w.rows[j]; });
    fill(p, S.n, [&](int i) { return p[i] * w.columns[i]; });
    return squared_norm(p, S.n) + squared_norm(v, S.m);
}

// Moves w.u by `side` times 4 w.reach into the cones whose distance to a kink is at most w.reach.
inline void step_aside(const Shape &S, Workspace &w, const Pack *u, const Pack *margin, double side) {
    const double exponential_inside[] = {-1, 1, 1}, power_inside[] = {1, 1, 0};
    auto move = [&](int j, double inside) {
        const Value step = side * ASIDE * inside * w.reach[j];
        w.u[j] = u[j] + select(margin[j] <= w.reach[j], step, Value{});
    };
    each(S.separable(), [&](int j) { move(j, 1); });
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        each(S.sizes[c], [&](int i) { move(at + i, i == 0 ? 1 : 0); });
    for (int c = 0; c < S.semidefinite; c++)
        for (int j = S.orders[c]; j > 0; at += j--)
            each(j, [&](int i) { move(at + i, i == 0 ? 1 : 0); });
    each(S.exponential + S.power, [&](int c) {
        for (int i = 0; i < 3; i++)
            move(at + 3 * c + i, c < S.exponential ? exponential_inside[i] : power_inside[i]);
    });
}

// p (n) and v (m), or steps of x and y, from equilibrated units.
CVXFOLD_LONG void into_own_units(const Shape &S, const Workspace &w, Pack *p, Pack *v) {
    fill(p, S.n, [&](int i) { return p[i] * w.columns[i]; });
    fill(v, S.m, [&](int j) { return v[j] * w.rows[j]; });
    tilt_dual_back(S, w, v);
}

// An adjoint in the program's own units and its state, put aside in w.found while others are tried.
struct Kept {
    Pack *p, *v, *u;

    Kept(const Shape &S, Workspace &w, const AdjointVectors &a) : p(w.found), v(p + S.n), u(v + S.m) {
        fill(p, S.n, [&](int i) { return a.p[i]; });
        each(S.m, [&](int j) {
            v[j] = w.y[j];
            u[j] = w.u[j];
        });
    }

    // Leaves in a.p and w.y how far they are from what is kept.
    void subtract(const Shape &S, Workspace &w, AdjointVectors &a) const {
        fill(a.p, S.n, [&](int i) { return a.p[i] - p[i]; });
        fill(w.y, S.m, [&](int j) { return w.y[j] - v[j]; });
    }

    void restore(const Shape &S, Workspace &w, AdjointVectors &a) const {
        fill(a.p, S.n, [&](int i) { return p[i]; });
        each(S.m, [&](int j) {
            w.y[j] = v[j];
            w.u[j] = u[j];
        });
    }
};

// The adjoint at w.u in the program's own units, p in a.p and v in w.y; `looks_at_J` as `adjoint` has it.
inline Screened adjoint_beside(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                               const Progress &progress, const Pack *y_given, bool looks_at_J) {
    reset(S, w.roots);
    decompose(S, w, w.u);
    const Screened seen = adjoint(S, Y, w, a, progress, y_given, w.s, nullptr, looks_at_J);
    into_own_units(S, w, a.p, w.y);
    return seen;
}

// Whether it matters on which side of the kinks within w.reach an instance is: NO, where both sides give the
// same gradient on what parameters reach and on neither J is singular in a way that matters; YES, where the
// gradients are far apart; else PERHAPS. The adjoint and the state are as before afterwards.
CVXFOLD_LONG Value sides_matter(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                                const Progress &progress, const Pack *y_given, DataGradient at, Pack *margin,
                                Value floor) {
    const Kept kept(S, w, a);
    Mask agree = all(), solved = all();
    Value farthest{};
    Value largest_norm = floor;
    for (double side : SIDES) {
        step_aside(S, w, kept.u, margin, side);
        const Screened seen = adjoint_beside(S, Y, w, a, progress, y_given, true);
        solved &= seen.residual <= SIDES_AGREE;
        agree &= (seen.smallest >= SINGULAR) | (seen.matters == NO);
        largest_norm = max(largest_norm, sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, at.x, at.y})));
        kept.subtract(S, w, a);
        const Value apart = sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, at.x, at.y}));
        agree &= apart <= 0.5 * SIDES_AGREE * largest_norm;
        farthest = max(farthest, apart);
    }
    kept.restore(S, w, a);
    const Mask apart = solved & (farthest > SIDES_DIFFER * largest_norm);
    return select(agree & solved, splat(NO), select(apart, splat(YES), splat(PERHAPS)));
}

// Whether parameters feel that a multiplier is not unique, y and y + t dy being as good: they move the rows
// that dy ties to each other apart, dy'(db - dA x) != 0, or, by more than a part of a gradient of norm
// `size`, a gradient that takes y for its like, -dA'(dy p'). Uses w.turned, w.scratch, w.parameters.
CVXFOLD_LONG Mask multipliers_matter(const Shape &S, const Layout &Y, Workspace &w, const Pack *null,
                                     const DataGradient &at, Value size) {
    Pack *dy = w.turned, *sums = w.parameters;
    Value largest{};
    moved_multipliers(S, w, null, dy);
    auto add = [&](const Map &map, int row, Value term) {
        for (int e = map.start[row]; e < map.start[row + 1]; e++) {
            sums[map.index[e]] += map.weight[e] * term;
            largest = max(largest, abs(map.weight[e] * term));
        }
    };
    auto add_A = [&](const Pack *beside) {
        one_by_one([&] {
            for (int i = 0, row = 0; i < Y.moving_A; i++) {
                row = row_of(S, Y.which_A[i], row);
                add(Y.A, Y.which_A[i], -dy[row] * beside[S.A_column[Y.which_A[i]]]);
            }
        });
    };
    clear(sums, Y.entries);
    one_by_one([&] {
        for (int i = 0; i < Y.moving_b; i++)
            add(Y.b, Y.which_b[i], dy[Y.which_b[i]]);
    });
    add_A(at.x);
    largest = joined(largest, Larger());
    const Mask apart = infinity_norm(sums, Y.entries) > FELT * largest;
    clear(sums, Y.entries);
    add_A(at.p);
    const Value unit = max(infinity_norm(dy, S.m), splat(2.3e-308));
    const Value change = sqrt(squared_norm(sums, Y.entries)) * (infinity_norm(at.y, S.m) / unit);
    return apart | (change > SIDES_AGREE * size);
}

// The norm of the gradient's change on what parameters reach where the step w.step is
// taken: as a diagnosis takes it (cvxfold.gradient.error), for where the projection turns too fast to say it
// from here. Infinite where that cannot be told. The adjoint and the state are as before afterwards.
CVXFOLD_LONG Value change_by_step(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                                  const Progress &progress, const Pack *y_given, DataGradient at) {
    const Kept kept(S, w, a);
    fill(w.u, S.m, [&](int j) { return w.u[j] + (w.step[S.N + j]); });
    const Screened there = adjoint_beside(S, Y, w, a, progress, y_given, false);
    kept.subtract(S, w, a);
    const DataGradient by_point{kept.p, kept.v, w.step, w.step + S.n};
    const Value change = sqrt(squared_norm_on_moving(S, Y, {a.p, w.y, at.x, at.y}, &by_point));
    kept.restore(S, w, a);
    return select(there.residual <= SIDES_AGREE, change, splat(infinite()));
}

// What y counts beside, at the solution x (n) and y (m) in own units: the largest of q, of the terms of P x,
// and of y; in equilibrated units, infinite where all are zero.
inline Value size_of_duals(const Shape &S, const Workspace &w, Value size, const Pack *x, const Pack *y) {
    const auto of_entry = [&](int e) {
        const int i = S.P_row[e], j = S.P_column[e];
        return abs(w.P[e]) * max(abs(x[i] / w.columns[i]), abs(x[j] / w.columns[j]));
    };
    const Value of_y = fold(0, S.m, Value{}, [&](int j) { return abs(y[j] / w.rows[j]); }, Larger());
    const Value of_both = max(fold(0, S.nnz_P, Value{}, of_entry, Larger()), of_y);
    const Value all = max(infinity_norm(w.q, S.n), of_both / size);
    return select(all > 0.0, all, splat(infinite()));
}

// From the terms of each row's cone in w.reach to the distance to a kink that cannot be told from zero, where
// u may be off by `du`; and whether there is one. Where R is large for s and y that distance may be R^-1 y,
// which counts beside what y does, `duals`.
inline void find_kinks(const Shape &S, Workspace &w, const Pack *margin, const Pack *du, Value duals,
                       Screened &seen) {
    Pack *off = w.scratch;
    fill(off, S.m, [&](int j) { return abs(du[j]); });
    for (int cone = 0, at = S.separable(); at < S.m; at += S.rows_of(cone++))
        spread_largest(off + at, S.rows_of(cone));
    seen.margin = splat(infinite());
    Mask on_kink = none();
    const auto reach = [&](int j) {
        const Value of_y = j >= S.separable() ? duals : select(w.u[j] < 0.0, duals, splat(infinite()));
        const Value least = max(KINK * min(w.reach[j], of_y / w.R[j]), LEAST_KINK * seen.state_size);
        return max(least, min(10.0 * off[j], LARGEST_KINK * seen.state_size));
    };
    for (int j = 0; j < S.m; j++) {
        seen.margin = min(seen.margin, margin[j] / max(w.reach[j], splat(1e-300)));
        on_kink |= margin[j] <= reach(j);
    }
    fill(w.reach, S.m, reach);
    seen.on_kink = select(on_kink, splat(PERHAPS), splat(NO));
}

// Loss gradients in a.x_bar and y_given, equilibrated; x and y in own units; w.s and w.y as `decompose` left
// them. Leaves p in a.p, v in w.y, both in the program's own units.
inline Screened backward(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                         const Progress &progress, const Pack *x, const Pack *y, const Pack *y_given) {
    Pack *margin = w.found + S.N + S.m;
    Screened seen = adjoint(S, Y, w, a, progress, y_given, margin, w.reach);
    // The change by what is left of the adjoint's system, and by what u, x and y may be off.
    Pack *du = w.step + S.N, *rho = a.zeta_before, *dx = w.step, *dy = w.step + S.n, *dp = w.Px,
         *dv = w.primal, *dp_by_turn = a.p_before, *dv_by_turn = w.s, *first_p = w.dx, *first_v = w.du;
    const bool turns = S.curved() && S.m > 0;
    if (S.m > 0) {
        fill(dx, S.n, [&](int i) { return a.step[i]; });
        each(S.m, [&](int j) {
            w.turned[j] = -w.primal[j];
            dy[j] = w.E[j] * a.step[S.n + j];
        });
        state_of(S, w, a.step, w.turned, du);
        find_kinks(S, w, margin, du, size_of_duals(S, w, progress.size, x, y), seen);
        out_of_frame(S, w.frame, dy, dy);
    } else {
        clear(dx, S.n);
    }
    if (turns)
        turn_of_projection(S, w, a, du, y_given, rho);
    if (S.second_order) { // by Q'A, of which less is rounding
        adjoint_remainder(S, w, a, splat(1));
        out_of_frame(S, w.frame, w.y, w.y);
    }
    add_rounding(S, w, a);
    change_of_adjoint(S, w, a, nullptr, dp, dv);
    into_own_units(S, w, dp, dv);
    into_own_units(S, w, a.p, w.y);
    if (turns) {
        clear(a.upper, S.n);
        clear(a.lower, S.m);
        change_of_adjoint(S, w, a, rho, dp_by_turn, dv_by_turn);
        into_own_units(S, w, dp_by_turn, dv_by_turn);
    }
    into_own_units(S, w, dx, dy);
    fill(dx, S.n, [&](int i) { return dx[i] * progress.size; });
    fill(dy, S.m, [&](int j) { return dy[j] * progress.size; });
    const Value faint = FAINT * FAINT * first_step(S, w, a.x_bar, y_given, first_p, first_v);
    const DataGradient own{a.p, w.y, x, y}, by_rest{dp, dv, x, y}, by_turn{dp_by_turn, dv_by_turn, x, y},
        by_point{a.p, w.y, dx, dy}, of_first_step{first_p, first_v, x, y};
    const GradientChange asked[] = {{&own, nullptr},
                                    {&by_rest, nullptr},
                                    {turns ? &by_turn : nullptr, &by_point},
                                    {&of_first_step, nullptr}};
    const SquaredNorms<4> norms = squared_norms_on_moving(S, Y, asked);
    const Value gradient = sqrt(norms.of[0]), change = sqrt(norms.of[1]), share = sqrt(norms.of[2]);
    const Value floor = FELT * sqrt(max(norms.of[3], faint));
    // What cannot be told from zero has no digits of its own.
    const Mask clear = gradient > SAFETY * (change + share);
    const Value least = max(gradient, floor), size = select(clear, gradient, least);
    const Mask rounding = (change + share) * FELT <= CANCELS * floor;
    seen.gradient = gradient;
    seen.flat = select(~clear & rounding & (floor > 0.0), splat(1), Value{});
    seen.error = select(change == 0.0, change, change / max(size, splat(2.3e-308)));
    seen.offset = select(share == 0.0, share, share / max(size, splat(2.3e-308)));
    const Mask fast = ~(seen.offset <= TURNS_FAST);
    if (turns && any(fast)) {
        const Value taken = change_by_step(S, Y, w, a, progress, y_given, {a.p, w.y, x, y});
        seen.offset = select(fast, taken / max(size, splat(2.3e-308)), seen.offset);
    }
    seen.strength = select(size == 0.0, Value{}, FELT * size / max(floor, splat(2.3e-308)));
    const Mask tied = seen.tied & (seen.matters > NO);
    if (any(tied)) {
        const Mask matter = multipliers_matter(S, Y, w, a.null, {a.p, w.y, x, y}, least);
        const Value else_matters = select(seen.tilts, splat(PERHAPS), splat(NO));
        seen.matters = select(tied & ~matter, else_matters, seen.matters);
    }
    if (any(seen.on_kink > 0.0)) {
        const Value matter = sides_matter(S, Y, w, a, progress, y_given, {a.p, w.y, x, y}, margin, least);
        seen.on_kink = select(seen.on_kink > 0.0, matter, splat(NO));
    }
    if (S.second_order && any(tilted(S, w)))
        seen.error = max(seen.error, error_by_pairs(S, Y, w, own));
    return seen;
}

} // namespace cvxfold
