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
// 2. Refine against the exact one. Beside each correction runs a step of inverse iteration on J, the Jacobian
// of
//    b - s - A x in u, whose growth bounds J's smallest singular value from above; and beside the first the
//    step that Newton's method would still take.
// 3. Check P p + A'v = x_bar in the program's own units.
// 4. One more correction tells what error of the gradient the remainder stands for.
#pragma once

#include "layout.hpp"
#include "newton.hpp"

namespace cvxfold {

struct Screened {
    Pack residual, corrections; // relative; how many
    Pack margin, on_kink; // distance to the nearest kink over the largest of u, A x and b; whether it is zero
    Pack smallest, offset; // bound of J's smallest singular value; |du| over the same size
    Pack state_size;       // that size
    Pack matters;          // whether what J makes small concerns the loss or what parameters move
    Pack error, strength;  // of the gradient, as cvxfold.gradient.screen has them
};

const int CORRECTIONS = 12;
const double ADJOINT_EXACT = 1e-15;
const double KINK = 1e-9, LARGEST_KINK = 1e-6, FELT = 1e-7; // as cvxfold.gradient.screen has them
const int LOOKS = 3;                                        // steps of inverse iteration

// right-hand side of J du = r: r1 = -A'R r, r2 = E Q'r, into column c.
template <int C> inline void gather_state(const Shape &S, Workspace &w, const Pack *r, Pack *upper, int c) {
    for (int j = 0; j < S.m; j++)
        w.turned[j] = w.R[j] * r[j];
    for (int i = 0; i < S.n; i++)
        upper[i] = Pack{};
    add_A_transposed(S, w.A, w.turned, upper);
    for (int i = 0; i < S.n; i++)
        w.right[S.place[i] * C + c] = -upper[i];
    into_frame(S, w.frame, r, w.turned);
    for (int j = 0; j < S.m; j++)
        w.right[S.place[S.n + j] * C + c] = w.E[j] * w.turned[j];
}

// du from the solution in column c, for r whose frame coordinates are Q'r = `turned`. Uses w.dx.
template <int C> inline void scatter_state(const Shape &S, Workspace &w, const Pack *r, Pack *du, int c) {
    for (int i = 0; i < S.n; i++)
        w.dx[i] = w.right[S.place[i] * C + c];
    multiply_A(S, w.A, w.dx, du);
    for (int j = 0; j < S.m; j++)
        du[j] = r[j] - du[j];
    into_frame(S, w.frame, du, du);
    for (int j = 0; j < S.m; j++) {
        Pack z = w.right[S.place[S.n + j] * C + c];
        Pack by_multiplier = -z / (w.R[j] * max(w.E[j], splat(0.5)));
        du[j] = select(w.lambda[j] <= 0.5, by_multiplier, du[j] / (w.lambda[j] + DELTA));
    }
    out_of_frame(S, w.frame, du, du);
}

// A vector without a preferred direction, the same at every call.
inline double generic(int j) {
    const double place = j + 1;
    return __builtin_cos(1.7 * place * place + place);
}

// Whether a direction that J makes small concerns somebody: it moves an entry of x or y that the loss looks
// at, or ties the multiplier of an inequality to a row that parameters move. From dx, z (in column c of
// w.right) and du, as scatter_state left them. Uses w.turned.
template <int C>
inline Pack matters(const Shape &S, const Layout &Y, Workspace &w, const Pack *du, const Pack *x_bar,
                    const Pack *y_given, int c) {
    Pack *dy = w.turned, length = FELT * sqrt(squared_norm(du, S.m)), x_largest{}, y_largest{};
    for (int i = 0; i < S.n; i++)
        x_largest = max(x_largest, abs(w.dx[i] * w.columns[i]));
    for (int j = 0; j < S.m; j++)
        dy[j] = w.E[j] * w.right[S.place[S.n + j] * C + c];
    out_of_frame(S, w.frame, dy, dy);
    for (int j = 0; j < S.m; j++) {
        dy[j] = select(abs(dy[j]) > length * w.R[j], dy[j] * w.rows[j], Pack{});
        y_largest = max(y_largest, abs(dy[j]));
    }
    Mask seen = none(), inequality = none(), moved = none();
    for (int i = 0; i < S.n; i++)
        seen |=
            (x_bar[i] != 0.0) & (abs(w.dx[i]) > length) & (abs(w.dx[i] * w.columns[i]) > FELT * x_largest);
    for (int j = 0; j < S.m; j++) {
        const Mask ties = (abs(dy[j]) > FELT * y_largest) & (y_largest > 0.0);
        seen |= (y_given[j] != 0.0) & ties;
        if (j >= S.zero)
            inequality |= ties;
    }
    for (int k = 0; k < Y.moving_rows; k++)
        moved |= (abs(dy[Y.which_rows[k]]) > FELT * y_largest) & (y_largest > 0.0);
    return select(seen | (inequality & moved), splat(1), Pack{});
}

// What the adjoint works on, (n) and (m) each.
struct AdjointVectors {
    Pack *x_bar, *z_bar;          // right-hand side; z_bar = E Q'y_bar
    Pack *p, *zeta;               // the adjoint
    Pack *upper, *lower;          // what is left of the system
    Pack *state;                  // of inverse iteration, (m)
    Pack *p_before, *zeta_before; // the last correction's

    AdjointVectors(const Shape &S, Workspace &w)
        : x_bar(w.adjoint), z_bar(w.adjoint + S.n), p(w.x_before), zeta(w.u_before), upper(w.adjoint + S.N),
          lower(w.adjoint + S.N + S.n), state(w.adjoint + 2 * S.N), p_before(w.x_kept),
          zeta_before(w.u_kept) {}
};

// upper = x_bar - P p - (E Q'A)'zeta and lower likewise, exactly; returns the larger relative to the
// right-hand side.
inline Pack adjoint_remainder(const Shape &S, Workspace &w, AdjointVectors &a, Pack size) {
    for (int j = 0; j < S.m; j++)
        w.y[j] = w.E[j] * a.zeta[j];
    out_of_frame(S, w.frame, w.y, w.y); // v
    multiply_P(S, w.P, a.p, a.upper);
    add_A_transposed(S, w.A, w.y, a.upper);
    multiply_A(S, w.A, a.p, a.lower);
    into_frame(S, w.frame, a.lower, a.lower);
    Pack left{};
    for (int i = 0; i < S.n; i++) {
        a.upper[i] = a.x_bar[i] - a.upper[i];
        left = largest(left, abs(a.upper[i]));
    }
    for (int j = 0; j < S.m; j++) {
        Pack rest = a.z_bar[j] - w.E[j] * a.lower[j] + w.lambda[j] / w.R[j] * a.zeta[j];
        a.lower[j] = select(w.lambda[j] < 1.0, rest, Pack{});
        left = largest(left, abs(a.lower[j]));
    }
    return left / size;
}

// The relative residual of P p + A'v = x_bar in the program's own units: |t| over the largest of its terms.
inline Pack stationarity(const Shape &S, const Workspace &w, const AdjointVectors &a) {
    Pack left{}, given{}, by_P{}, by_A{};
    multiply_P(S, w.P, a.p, w.Px);
    for (int i = 0; i < S.n; i++) {
        Pack unit = 1.0 / w.columns[i], t = a.upper[i] * unit, x_bar = a.x_bar[i] * unit, Pp = w.Px[i] * unit;
        Pack Av = x_bar - Pp - t;
        left += t * t;
        given += x_bar * x_bar;
        by_P += Pp * Pp;
        by_A += Av * Av;
    }
    return sqrt(ratio(left, max(given, max(by_P, by_A)), Pack{}));
}

// From w.u, a.x_bar and y_given (both in equilibrated units) to a.p, a.zeta and w.y = v. margin: (m), becomes
// the distance of each row's cone from the nearest kink.
inline Screened adjoint(const Shape &S, const Layout &Y, Workspace &w, AdjointVectors &a,
                        const Progress &progress, const Pack *y_given, Pack *margin) {
    Screened seen{};
    Pack *offset = w.du;
    reset_roots(S, w);
    residual(S, w, progress.rho); // for the offset, while w.s and w.y are free
    Pack state_size{};
    for (int j = 0; j < S.m; j++)
        state_size = max(state_size, max(abs(w.u[j]), max(abs(w.primal[j] - w.s[j] + w.b[j]), abs(w.b[j]))));
    state_size = select(state_size > 0.0, state_size, splat(1));
    look(S, w.roots, w.u, all(), w.lambda, w.frame, margin); // 1
    factor_newton(S, w, Pack{});
    into_frame(S, w.frame, y_given, a.z_bar);
    Pack size = infinity_norm(a.x_bar, S.n);
    for (int j = 0; j < S.m; j++) {
        a.z_bar[j] *= w.E[j];
        size = max(size, abs(a.z_bar[j]));
        a.zeta[j] = Pack{};
        a.lower[j] = a.z_bar[j];
        a.state[j] = splat(generic(j));
    }
    size = select(size > 0.0, size, splat(1));
    for (int i = 0; i < S.n; i++) {
        a.p[i] = Pack{};
        a.upper[i] = a.x_bar[i];
    }
    Mask improving = all(); // 2
    Pack best = splat(1e300);
    seen.smallest = splat(1);
    int looks = 0;
    for (int correction = 0; correction < CORRECTIONS; correction++) {
        const bool with_state = looks < LOOKS && S.m > 0;
        if (with_state) {
            Pack norm = sqrt(squared_norm(a.state, S.m)), inverse = 1.0 / max(norm, splat(1e-300));
            if (correction > 0)
                seen.smallest = min(seen.smallest, inverse);
            for (int j = 0; j < S.m; j++)
                a.state[j] *= inverse;
        }
        if (correction == 0) {
            gather<3>(S, w.right, 0, a.upper, a.lower);
            gather_state<3>(S, w, a.state, w.dx, 1);
            into_frame(S, w.frame, w.primal, w.turned);
            for (int i = 0; i < S.n; i++)
                w.right[S.place[i] * 3 + 2] = -w.dual[i];
            for (int j = 0; j < S.m; j++)
                w.right[S.place[S.n + j] * 3 + 2] = -w.E[j] * w.turned[j];
            solve<3>(S, w.newton, w.right);
            for (int j = 0; j < S.m; j++)
                w.primal[j] = -w.primal[j]; // r of scatter_state
            scatter_state<3>(S, w, w.primal, offset, 2);
            seen.offset = infinity_norm(offset, S.m) / state_size;
            scatter_state<3>(S, w, a.state, w.scratch, 1);
        } else if (with_state) {
            gather<2>(S, w.right, 0, a.upper, a.lower);
            gather_state<2>(S, w, a.state, w.dx, 1);
            solve<2>(S, w.newton, w.right);
            scatter_state<2>(S, w, a.state, w.scratch, 1);
            if (looks == LOOKS - 1)
                seen.matters = matters<2>(S, Y, w, w.scratch, a.x_bar, y_given, 1);
        } else {
            gather<1>(S, w.right, 0, a.upper, a.lower);
            solve<1>(S, w.newton, w.right);
        }
        const int C = correction == 0 ? 3 : with_state ? 2 : 1;
        for (int i = 0; i < S.n; i++) {
            a.p_before[i] = a.p[i];
            a.p[i] = select(improving, a.p[i] + w.right[S.place[i] * C], a.p[i]);
        }
        for (int j = 0; j < S.m; j++) {
            a.zeta_before[j] = a.zeta[j];
            a.zeta[j] = select(improving, a.zeta[j] + w.right[S.place[S.n + j] * C], a.zeta[j]);
            if (with_state)
                a.state[j] = w.scratch[j];
        }
        looks++;
        Pack left = adjoint_remainder(S, w, a, size);
        Mask better = improving & (left < best);
        Mask worse = improving & ~better;
        if (any(worse)) {
            for (int i = 0; i < S.n; i++)
                a.p[i] = select(worse, a.p_before[i], a.p[i]);
            for (int j = 0; j < S.m; j++)
                a.zeta[j] = select(worse, a.zeta_before[j], a.zeta[j]);
        }
        seen.corrections += select(improving, splat(1), Pack{});
        best = select(better, left, best);
        improving = better & (best > ADJOINT_EXACT);
        if (!any(improving) && looks >= LOOKS)
            break;
    }
    if (S.m > 0)
        seen.smallest = min(seen.smallest, 1.0 / max(sqrt(squared_norm(a.state, S.m)), splat(1e-300)));
    adjoint_remainder(S, w, a, size); // of what was kept; leaves v in w.y
    seen.residual = select(finite(best), largest(best, stationarity(S, w, a)), splat(__builtin_inf())); // 3
    Pack nearest = splat(__builtin_inf());
    for (int j = 0; j < S.m; j++)
        nearest = min(nearest, margin[j]);
    seen.margin = nearest / state_size;
    seen.state_size = state_size;
    Pack error = min(10.0 * seen.offset, splat(LARGEST_KINK));
    Mask on_kink = seen.margin <= max(splat(KINK), error);
    seen.on_kink = select(on_kink, splat(1), Pack{});
    return seen;
}

} // namespace cvxfold
