// The backward pass of one pack: the adjoint of the optimality conditions, and a look at each instance.
//
// With D = Q lambda Q' at u and dy = Q E z, a change (r1, r2) of the conditions moves x and y by
//
//     [ P      (E Q'A)'   ] [ dx ]     [ r1      ]
//     [ E Q'A  -lambda/R  ] [ z  ]  =  [ E Q'r2  ]
//
// so, the matrix being symmetric, loss gradients x_bar and y_bar have the adjoint p, v = Q E zeta with
//
//     [ P      (E Q'A)'   ] [ p    ]     [ x_bar     ]
//     [ E Q'A  -lambda/R  ] [ zeta ]  =  [ E Q'y_bar ]
//
// 1. Factor the regularized matrix at u, as Newton's method does.
// 2. Refine against the exact one. Beside the first two corrections run two steps of inverse iteration on J,
//    the Jacobian of b - s - A x in u, whose growth bounds J's smallest singular value from above; and the
//    step that Newton's method would still take, then what of it is no null vector. Where J seems singular,
//    two more corrections purify the null vector, to see whether it matters.
// 3. Where that comes to no good end, as with badly conditioned programs, go on with hardly any
//    regularization.
// 4. Check P p + A'v = x_bar in the program's own units.
// 5. One more correction tells what error of the gradient the remainder stands for.
#pragma once

#include "criterion.hpp"
#include "inspection.hpp"
#include "rounding.hpp"

namespace cvxfold {

struct Screened {
    Value residual, corrections; // relative; how many
    Value margin, on_kink;       // least distance of a cone to a kink over its terms; whether one is zero
    Value smallest, offset;      // bound of J's smallest singular value; the change of the gradient by du
    Value state_size;            // the largest of u, A x and b
    Value matters;               // whether what J makes small concerns the loss or what parameters move
    Mask tied;                   // whether it concerns nothing but multipliers
    Mask tilts;                  // whether parameters may tilt the objective along it
    Value error, strength;       // of the gradient, as cvxfold.gradient.screen has them
    Value gradient, flat;        // its norm; 1 where it is zero to rounding
};

const int CORRECTIONS = 12, MENDING = 3;
const double ADJOINT_EXACT = 1e-15, ADJOINT_SLOW = 1e-12, PAIR_EXACT = 1e-10;
const double KINK = 1e-9, LEAST_KINK = 1e-13, LARGEST_KINK = 1e-6; // as cvxfold.gradient.screen has them
const double SINGULAR = 1e-5;                                      // as cvxfold.engines.lanes.figures has it
const double NULL_EXACT = 1e-12;                                   // |K v|/|v| of a null vector
const int LOOKS = 2, PURIFICATIONS = 2; // steps of inverse iteration; of (K + T)^-1 T after them

// What the adjoint works on, (n) and (m) each.
struct AdjointVectors {
    Pack *x_bar, *z_bar;          // right-hand side; z_bar = E Q'y_bar
    Pack *p, *zeta;               // the adjoint
    Pack *upper, *lower;          // what is left of the system
    Pack *state, *null, *step;    // of inverse iteration (m), its solution (N), Newton's (N)
    Pack *p_before, *zeta_before; // the last correction's

    AdjointVectors(const Shape &S, Workspace &w)
        : x_bar(w.adjoint), z_bar(w.adjoint + S.n), p(w.x_before), zeta(w.u_before), upper(w.adjoint + S.N),
          lower(w.adjoint + S.N + S.n), state(w.adjoint + 2 * S.N), null(w.adjoint + 3 * S.N),
          step(w.adjoint + 4 * S.N), p_before(w.x_kept), zeta_before(w.u_kept) {}
};

// upper = x_bar - P p - (E Q'A)'zeta and lower likewise, exactly; returns the larger relative to the
// right-hand side. Leaves v in w.y, where it is `wanted`, and is with A itself then; else with Q'A, in which
// less may cancel (second_order.hpp).
CVXFOLD_LONG Value adjoint_remainder(const Shape &S, Workspace &w, AdjointVectors &a, Value size,
                                     bool wanted = false) {
    fill(w.y, S.m, [&](int j) { return w.E[j] * a.zeta[j]; });
    multiply_P(S, w.P, a.p, a.upper);
    if (wanted || !S.curved()) {
        out_of_frame(S, w.frame, w.y, w.y); // v
        add_A_transposed(S, w.A, w.y, a.upper);
        multiply_A(S, w.A, a.p, a.lower);
        into_frame(S, w.frame, a.lower, a.lower);
    } else {
        add_rotated_A_transposed(S, w, w.y, a.upper);
        multiply_rotated_A(S, w, a.p, a.lower);
    }
    Value left{};
    fill(a.upper, S.n, [&](int i) {
        const Value rest = a.x_bar[i] - a.upper[i];
        left = largest(left, abs(rest));
        return rest;
    });
    fill(a.lower, S.m, [&](int j) {
        Value rest = a.z_bar[j] - w.E[j] * a.lower[j] + w.lambda[j] / w.R[j] * a.zeta[j];
        rest = select(w.lambda[j] < 1.0, rest, Value{});
        left = largest(left, abs(rest));
        return rest;
    });
    return joined(left, Largest()) / size;
}

// The squared norm of |A|'|R Q E z_bar| in the program's own units: what y_bar brings into P p + A'v = x_bar,
// whose terms may all vanish where the loss looks at y alone. Uses w.turned, w.scratch.
inline Value terms_of_duals(const Shape &S, Workspace &w, const AdjointVectors &a) {
    Pack *v = w.turned, *sums = w.scratch;
    if (!any(infinity_norm(a.z_bar, S.m) > 0.0))
        return Value{};
    fill(v, S.m, [&](int j) { return w.R[j] * w.E[j] * a.z_bar[j]; });
    out_of_frame(S, w.frame, v, v);
    clear(sums, S.n);
    add_terms_of_A_transposed(S, w.A, v, sums);
    fill(sums, S.n, [&](int i) { return sums[i] * unit_of_column(S, w, i); });
    return squared_norm(sums, S.n);
}

// The relative residual of P p + A'v = x_bar in those units (tilt.hpp): |t| over the largest of its terms,
// and of what y_bar brings in. Uses w.turned, w.scratch, w.Px.
inline Value stationarity(const Shape &S, Workspace &w, const AdjointVectors &a) {
    Value left{}, given{}, by_P{}, by_A{};
    const Value by_duals = terms_of_duals(S, w, a);
    multiply_P(S, w.P, a.p, w.Px);
    each(S.n, [&](int i) {
        Value unit = unit_of_column(S, w, i), t = a.upper[i] * unit, x_bar = a.x_bar[i] * unit,
              Pp = w.Px[i] * unit;
        Value Av = x_bar - Pp - t;
        left += t * t;
        given += x_bar * x_bar;
        by_P += Pp * Pp;
        by_A += Av * Av;
    });
    left = joined(left, Sum()), given = joined(given, Sum());
    by_P = joined(by_P, Sum()), by_A = joined(by_A, Sum());
    return sqrt(ratio(left, max(max(given, by_duals), max(by_P, by_A)), Value{}));
}

// One solution with the factor for C columns: a correction, and what runs beside it.
template <int C> inline void correct(const Shape &S, Workspace &w, AdjointVectors &a, Mask improving) {
    gather(S, w.right, 0, a.upper, a.lower);
    solve_newton<C>(S, w);
    fill(a.p_before, S.n, [&](int i) { return a.p[i]; });
    fill(a.zeta_before, S.m, [&](int j) { return a.zeta[j]; });
    fill(a.p, S.n, [&](int i) { return select(improving, a.p[i] + w.right[S.place[i]], a.p[i]); });
    fill(a.zeta, S.m,
         [&](int j) { return select(improving, a.zeta[j] + w.right[S.place[S.n + j]], a.zeta[j]); });
}

// The solution in column c, as (dx, z), (N).
inline void take_column(const Shape &S, const Workspace &w, int c, Pack *solution) {
    scatter(S, w.right, c, solution, solution + S.n);
}

// A step of inverse iteration from a.state; returns 1/growth, an upper bound of J's smallest singular value.
inline Value next_state(const Shape &S, Workspace &w, AdjointVectors &a) {
    state_of(S, w, a.null, a.state, w.scratch);
    const Value inverse = 1.0 / max(sqrt(squared_norm(w.scratch, S.m)), splat(1e-300));
    fill(a.state, S.m, [&](int j) { return w.scratch[j] * inverse; });
    return inverse;
}

// The correction of that number, 0, 1, …, with what runs beside it.
inline void correct(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a, Mask improving,
                    int number, const Pack *y_given, Screened &seen) {
    if (S.m > 0 && number < LOOKS) {
        gather_state(S, w, a.state, w.dx, 1);
        if (number == 0)
            gather_step(S, w, 2);
        else
            gather_null(S, w, a.step, 2);
        correct<3>(S, w, a, improving);
        take_column(S, w, 1, a.null);
        seen.smallest = min(seen.smallest, next_state(S, w, a));
        if (number == 0) {
            take_column(S, w, 2, a.step);
            return;
        }
        Pack *null_part = w.scratch;
        take_column(S, w, 2, null_part);
        fill(a.step, S.N, [&](int i) { return a.step[i] - null_part[i]; });
    } else if (S.m > 0 && number < LOOKS + PURIFICATIONS && any(~(seen.smallest >= SINGULAR))) {
        gather_null(S, w, a.null, 1);
        correct<2>(S, w, a, improving);
        take_column(S, w, 1, a.null);
        const Value inverse = 1.0 / max(sqrt(squared_norm(a.null, S.N)), splat(1e-300));
        fill(a.null, S.N, [&](int i) { return a.null[i] * inverse; });
        if (number == LOOKS + PURIFICATIONS - 1) {
            const Concern concern = matters(S, Y, w, a.null, a.x_bar, y_given);
            const Mask null = null_residual(S, w, a.null) <= NULL_EXACT, any_of = concern.seen | concern.ties;
            seen.tilts = concern.tilts;
            seen.matters = select(concern.tilts, splat(PERHAPS), splat(NO));
            seen.matters = select(any_of, select(null, splat(YES), splat(PERHAPS)), seen.matters);
            seen.tied = concern.ties & ~concern.seen;
        }
    } else {
        correct<1>(S, w, a, improving);
    }
}

// Further corrections where a second-order cone's second row in its frame, which fixes what is small there,
// is not solved for beside its own terms, though it is beside all others.
inline void mend_pairs(const Shape &S, Workspace &w, AdjointVectors &a, Value size) {
    if (!S.second_order)
        return;
    Value left = adjoint_remainder(S, w, a, size);
    for (int number = 0; number < MENDING; number++) {
        Value worst{};
        each_pair(S, w, [&](int at, int, const second_order::Pair &) {
            const int row = at + 1;
            const Value own = w.E[row] * terms_in_frame(S, w, a.p, row) + abs(a.z_bar[row]);
            worst = max(worst, over(abs(a.lower[row]), own));
        });
        const Mask off = (worst > PAIR_EXACT) & (left <= ADJOINT_SLOW);
        if (!any(off))
            return;
        correct<1>(S, w, a, off);
        const Value after = adjoint_remainder(S, w, a, size);
        const Mask back = off & ~(after <= max(2.0 * left, splat(ADJOINT_EXACT)));
        fill(a.p, S.n, [&](int i) { return select(back, a.p_before[i], a.p[i]); });
        fill(a.zeta, S.m, [&](int j) { return select(back, a.zeta_before[j], a.zeta[j]); });
        left = select(back, splat(infinite()), after);
    }
}

// A correction, with Newton's step beside it, where regularization would shorten that.
inline void correct_with_step(const Shape &S, Workspace &w, AdjointVectors &a, Mask improving) {
    gather_step(S, w, 1);
    correct<2>(S, w, a, improving);
    Pack *step = w.scratch;
    take_column(S, w, 1, step);
    fill(a.step, S.N, [&](int i) { return select(improving, step[i], a.step[i]); });
}

// From w.u, w.s and w.y there, a.x_bar and y_given (both in equilibrated units) to a.p, a.zeta and w.y = v.
// margin: (m), becomes the distance of each row's cone from the nearest kink; terms: as `add_rounding` has
// them. looks_at_J: whether J's smallest singular value and what it concerns are wanted; without, a.null and
// a.step stay.
CVXFOLD_LONG Screened adjoint(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                              const Progress &progress, const Pack *y_given, Pack *margin, Pack *terms,
                              bool looks_at_J = true) {
    Screened seen{};
    remaining(S, w, progress.rho); // for the offset, while w.s and w.y are free
    const auto terms_of = [&](int j) {
        return max(abs(w.u[j]), max(abs(w.primal[j] - w.s[j] + w.b[j]), abs(w.b[j])));
    };
    Value state_size = fold(0, S.m, Value{}, terms_of, Larger());
    state_size = select(state_size > 0.0, state_size, splat(1));
    add_rounding(S, w, terms);
    look(S, w.roots, w.u, all(), w.lambda, w.frame, margin); // 1
    factor_newton(S, w, Value{}, {});
    into_frame(S, w.frame, y_given, a.z_bar);
    fill(a.z_bar, S.m, [&](int j) { return a.z_bar[j] * w.E[j]; });
    clear(a.zeta, S.m);
    fill(a.lower, S.m, [&](int j) { return a.z_bar[j]; });
    fill(a.state, S.m, [&](int j) { return splat(generic(j)); });
    Value size = max(infinity_norm(a.x_bar, S.n), infinity_norm(a.z_bar, S.m));
    const Value length = squared_norm(a.state, S.m);
    fill(a.state, S.m, [&](int j) { return a.state[j] / (sqrt(length)); });
    size = select(size > 0.0, size, splat(1));
    clear(a.p, S.n);
    fill(a.upper, S.n, [&](int i) { return a.x_bar[i]; });
    Mask improving = all(); // 2
    Value best = splat(1e300);
    seen.smallest = splat(1);
    bool remainder_is_of_kept = true;
    const auto keep = [&] { // the better of the last two
        const Value left = adjoint_remainder(S, w, a, size);
        const Mask better = improving & (left < best), worse = improving & ~better;
        remainder_is_of_kept = !any(worse);
        if (any(worse)) {
            fill(a.p, S.n, [&](int i) { return select(worse, a.p_before[i], a.p[i]); });
            fill(a.zeta, S.m, [&](int j) { return select(worse, a.zeta_before[j], a.zeta[j]); });
        }
        seen.corrections += select(improving, splat(1), Value{});
        best = select(better, left, best);
        improving = better & (best > ADJOINT_EXACT);
    };
    for (int number = 0; number < CORRECTIONS; number++) {
        correct(S, Y, w, a, improving, looks_at_J ? number : LOOKS + PURIFICATIONS, y_given, seen);
        keep();
        const int looks = LOOKS + (any(~(seen.smallest >= SINGULAR)) ? PURIFICATIONS : 0);
        const bool looked = !looks_at_J || number + 1 >= looks;
        if (!any(improving) && looked)
            break;
    }
    improving = best > ADJOINT_SLOW; // 3
    if (any(improving)) {
        adjoint_remainder(S, w, a, size);
        factor_newton(S, w, Value{}, hardly_any(improving));
        for (int number = 0; number < CORRECTIONS && any(improving); number++) {
            if (number == 0 && looks_at_J)
                correct_with_step(S, w, a, improving);
            else
                correct<1>(S, w, a, improving);
            keep();
        }
    }
    mend_pairs(S, w, a, size);
    if (S.curved() || !remainder_is_of_kept)
        adjoint_remainder(S, w, a, size, true); // of what was kept; leaves v in w.y
    seen.residual = select(finite(best), largest(best, stationarity(S, w, a)), splat(infinite())); // 4
    seen.state_size = state_size;
    return seen;
}

} // namespace cvxfold
