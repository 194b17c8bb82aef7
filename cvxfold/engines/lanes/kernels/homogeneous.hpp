// The interior-point method with cones that are not symmetric among the others: on the homogeneous embedding
//
//     P x + A'y + q tau = 0     A x + s - b tau = 0     x'P x/tau + q'x + b'y + kappa = 0
//
// (Goulart and Chen, "Clarabel: An interior-point solver for conic programs with quadratic objectives",
// 2024), whose iterates need not be as large as the solution, x/tau, and which any point inside may begin.
//
// 1. Residuals and mu = (s'y + tau kappa)/(degree + 1).
// 2. Scaling; factor K with G = W^2. K (x2, y2) = (-q, b) is what tau asks for.
// 3. Predictor: toward the boundary. 4. Corrector: centred, of symmetric cones with the predictor's second
// order, and the residuals lowered as much as mu.
// 5. Step nearly to the boundary.
#pragma once

#include "interior.hpp"
#include "scaling_exponential.hpp"
#include "scaling_power.hpp"
#include "tilt.hpp"

namespace cvxfold {

namespace homogeneous {

using interior::Point;

const int MOST = 50, REFINEMENTS = 3, MOST_SHORT = 5;
const double ENOUGH = 1e-13, REFINED = 1e-15;
const double HARDLY_OPEN = 1e-8, FALLS = 0.5; // from where on residuals that do not fall are rounding
const double SOLUTION = 1e-3;                 // of tau, that kappa is at most at a solution
const double SHORT = 0.1;                     // a step, of which MOST_SHORT in a row are the end

// Besides, in memory that is free as well.
struct Embedded {
    Pack *x2, *y2;       // (n), (m), the latter in the frame
    Pack *B, *shadow;    // (9), (3) for each cone in R^3; of the dual point
    Pack *upper, *lower; // (n), (m): a right-hand side
    Pack *best_x, *best_u;
    Value tau, kappa, dtau, dkappa;

    Embedded(const Shape &S, Workspace &w)
        : x2(w.found + 2 * S.m), y2(x2 + S.n), B(w.frame_beside), shadow(w.reach), upper(w.own),
          lower(upper + S.n), best_x(w.step), best_u(w.step + S.n), tau(splat(1)), kappa(splat(1)) {}
};

// Calls visit(first row, rows of B^-1, number) for each exponential and then each power cone.
template <typename Visit> inline void each_cone3(const Shape &S, Workspace &w, Visit visit) {
    const int count = S.exponential + S.power, at = S.m - 3 * count;
    Pack *frame = frame_scratch(S, w.frame) - FRAME3 * count;
    each(count, [&](int c) { visit(at + 3 * c, frame + FRAME3 * c, c); });
}

// The largest of `rest` (count) over that of its terms, a, tau b and what remains.
inline Value over_terms(int count, const Pack *rest, const Pack *a, const Pack *b, Value tau) {
    const Value terms = largest_of(0, count, [&](int i) {
        return max(max(abs(a[i]), abs(tau * b[i])), abs(rest[i] - a[i] - tau * b[i]));
    });
    return infinity_norm(rest, count) / max(terms, splat(1e-300));
}

// Every cone's unit.
inline void begin(const Shape &S, Workspace &w, Point &p) {
    clear(p.x, S.n);
    clear(p.s, S.m);
    interior::each_orthant_row(S, [&](int j) { p.s[j] = splat(1); });
    interior::each_second_order(S, w.frame, [&](int, int at, Pack *) { set(p.s[at], splat(1)); });
    Pack *rest = interior::each_second_order(S, w.frame, [](int, int, Pack *) {});
    interior::each_matrix(S, p, rest, [&](int order, int at, Pack *, Pack *) {
        scaling_semidefinite::shift(order, p.s + at, splat(1));
    });
    each_cone3(S, w, [&](int at, Pack *, int c) {
        const double alpha = c < S.exponential ? 0 : S.alpha[c - S.exponential];
        const Value of_power[] = {sqrt(splat(1 + alpha)), sqrt(splat(2 - alpha)), Value{}}; // its own shadow
        for (int i = 0; i < 3; i++)
            p.s[at + i] = c < S.exponential ? splat(scaling_exponential::CENTRE[i]) : of_power[i];
    });
    fill(p.y, S.m, [&](int j) { return p.s[j]; });
}

inline void scale(const Shape &S, Workspace &w, Point &p, Embedded &e) {
    interior::scale(S, w, p);
    each_cone3(S, w, [&](int at, Pack *inverse, int c) {
        const auto scale = [&](const auto &primal, const auto &dual, const scaling_cone3::Around &around) {
            scaling_cone3::scale(primal.s, dual.v, around, e.B + FRAME3 * c, inverse, e.shadow + 3 * c);
        };
        const scaling_cone3::Vector s = scaling_cone3::at(p.s + at), y = scaling_cone3::at(p.y + at);
        if (c < S.exponential) {
            const scaling_exponential::Primal primal(s);
            const scaling_exponential::Dual dual(y);
            scale(primal, dual, scaling_exponential::around(primal, dual));
        } else {
            const scaling_power::Primal primal(s, S.alpha[c - S.exponential]);
            const scaling_power::Dual dual(y, S.alpha[c - S.exponential]);
            scale(primal, dual, scaling_power::around(primal, dual));
        }
        for (int i = 0; i < 3; i++)
            p.G[at + i] = splat(1);
    });
}

inline void complementarity(const Shape &S, Workspace &w, Point &p, const Embedded &e, bool corrector,
                            Value centre) {
    interior::complementarity(S, w, p, corrector, centre);
    each_cone3(S, w, [&](int at, Pack *, int c) {
        for (int i = 0; i < 3; i++)
            p.d[at + i] = -p.s[at + i] + (corrector ? centre * e.shadow[3 * c + i] : Value{});
    });
}

// Solves K (x, y) = (e.upper, e.lower), refined against K without sigma and delta. y: in the frame.
CVXFOLD_LONG void solve_refined(const Shape &S, Workspace &w, const Point &p, const Embedded &e, Pack *x,
                                Pack *y) {
    Pack *upper = w.scratch, *lower = upper + S.n;
    clear(x, S.n);
    clear(y, S.m);
    fill(upper, S.n, [&](int i) { return e.upper[i]; });
    fill(lower, S.m, [&](int j) { return e.lower[j]; });
    Value before = splat(infinite());
    Mask improving = all();
    for (int time = 0; time <= REFINEMENTS; time++) {
        gather(S, w.right, 0, upper, lower);
        solve_with<1>(S, w, w.newton, {w.frame, nullptr}, w.right);
        fill(x, S.n, [&](int i) { return select(improving, x[i] + w.right[S.place[i]], x[i]); });
        fill(y, S.m, [&](int j) { return select(improving, y[j] + w.right[S.place[S.n + j]], y[j]); });
        if (time == REFINEMENTS)
            break;
        multiply_P(S, w.P, x, upper);
        add_rotated_A_transposed(S, w, y, upper);
        multiply_rotated_A(S, w, x, lower);
        fill(upper, S.n, [&](int i) { return e.upper[i] - upper[i]; });
        fill(lower, S.m,
             [&](int j) { return e.lower[j] - lower[j] + (j < S.zero ? Value{} : p.G[j] * y[j]); });
        const Value left = largest(infinity_norm(upper, S.n), infinity_norm(lower, S.m));
        const Value most = largest(infinity_norm(e.upper, S.n), infinity_norm(e.lower, S.m));
        improving &= (left < 0.5 * before) & (left > REFINED * most);
        before = left;
        if (!any(improving))
            break;
    }
}

// What the last row says: a'x + b'y with a = 2 P x/tau + q. y: in the frame.
inline Value of_objective(const Shape &S, Workspace &w, const Point &p, const Embedded &e, const Pack *x,
                          const Pack *y) {
    const Value linear = sum_of(0, S.n, [&](int i) { return (2.0 * w.Px[i] / e.tau + w.q[i]) * x[i]; });
    out_of_frame(S, w.frame, y, p.work);
    return linear + sum_of(0, S.m, [&](int j) { return w.b[j] * p.work[j]; });
}

// From d, with the residuals times `lowered` and kappa's complementarity: dx into w.dx, dy, ds, dtau, dkappa.
CVXFOLD_LONG void step(const Shape &S, Workspace &w, Point &p, Embedded &e, Value gap, Value lowered,
                       Value complementarity, Value bend) {
    const int matrices = interior::semidefinite_rows_begin(S), others = exponential_rows_begin(S);
    const auto is_matrix = [&](int j) { return j >= matrices && j < others; };
    fill(e.upper, S.n, [&](int i) { return -lowered * w.dual[i]; });
    fill(p.work, S.m, [&](int j) {
        return -lowered * w.primal[j] - (j < S.zero || is_matrix(j) ? Value{} : Value(p.d[j]));
    });
    into_frame(S, w.frame, p.work, p.work);
    fill(e.lower, S.m, [&](int j) { return is_matrix(j) ? p.work[j] - p.d[j] : Value(p.work[j]); });
    solve_refined(S, w, p, e, w.dx, p.dy);
    const Value ahead = of_objective(S, w, p, e, w.dx, p.dy);
    e.dtau = (lowered * gap + complementarity / e.tau + ahead) / bend;
    e.dkappa = (complementarity - e.kappa * e.dtau) / e.tau;
    fill(w.dx, S.n, [&](int i) { return w.dx[i] + e.dtau * e.x2[i]; });
    fill(p.dy, S.m, [&](int j) { return p.dy[j] + e.dtau * e.y2[j]; });
    fill(p.work, S.m, [&](int j) { return p.G[j] * p.dy[j]; });
    each(others - matrices, [&](int i) {
        const int j = matrices + i;
        p.b[j] = p.dy[j];
        p.a[j] = p.d[j] - p.dy[j];
    });
    each_cone3(S, w, [&](int at, Pack *, int c) {
        const Pack *B = e.B + FRAME3 * c;
        for (int i = 0; i < 3; i++)
            p.ds[at + i] =
                p.d[at + i] - (B[i] * p.dy[at] + B[3 + i] * p.dy[at + 1] + B[6 + i] * p.dy[at + 2]);
    });
    out_of_frame(S, w.frame, p.dy, p.dy);
    out_of_frame(S, w.frame, p.work, p.work);
    each(matrices - S.zero, [&](int i) {
        const int j = S.zero + i;
        p.ds[j] = p.d[j] - p.work[j];
    });
    Pack *rest = interior::each_second_order(S, w.frame, [](int, int, Pack *) {});
    Pack *scratch = frame_scratch(S, w.frame);
    interior::each_matrix(S, p, rest, [&](int order, int at, Pack *, Pack *R) {
        semidefinite::turn_triangle(order, R, false, p.a + at, p.ds + at, scratch);
    });
}

CVXFOLD_LONG Value longest(const Shape &S, Workspace &w, const Point &p, const Embedded &e, double part) {
    Value length = min(part * interior::longest(S, w, p), splat(1));
    length = select(e.dtau < 0.0, min(length, -part * e.tau / e.dtau), length);
    length = select(e.dkappa < 0.0, min(length, -part * e.kappa / e.dkappa), length);
    Value own = length;
    each_cone3(S, w, [&](int at, Pack *, int c) {
        const Pack *s = p.s + at, *ds = p.ds + at, *y = p.y + at, *dy = p.dy + at;
        if (c < S.exponential) {
            using namespace scaling_exponential;
            own = scaling_cone3::to_boundary<Primal, Dual>(s, ds, y, dy, own);
        } else {
            using namespace scaling_power;
            own = scaling_cone3::to_boundary<Primal, Dual>(s, ds, y, dy, own, S.alpha[c - S.exponential]);
        }
    });
    return joined(own, Smaller());
}

} // namespace homogeneous

// Leaves in w.x, w.s and w.y where the method comes to, in the lanes of `mask`; returns those where tau says
// that it is a solution, and not a direction in which there is none.
template <typename TimeLeft>
CVXFOLD_LONG Mask homogeneous_interior_point(const Shape &S, Workspace &w, Progress &progress, Mask mask,
                                             Least least, TimeLeft time_left) {
    using namespace homogeneous;
    Point p(S, w, least);
    Embedded e(S, w);
    const double degree = interior::degree(S) + 3 * (S.exponential + S.power) + 1;
    homogeneous::begin(S, w, p);
    Mask running = mask;
    Value least_left = splat(infinite()), short_steps{};
    for (int iteration = 0; iteration < homogeneous::MOST && time_left(); iteration++) {
        multiply_P(S, w.P, p.x, w.Px); // 1
        fill(w.dual, S.n, [&](int i) { return w.Px[i] + e.tau * w.q[i]; });
        add_A_transposed(S, w.A, p.y, w.dual);
        multiply_A(S, w.A, p.x, w.primal);
        Value mu{};
        fill(w.primal, S.m, [&](int j) { return w.primal[j] + p.s[j] - e.tau * w.b[j]; });
        mu = (sum_of(S.zero, S.m, [&](int j) { return p.s[j] * p.y[j]; }) + e.tau * e.kappa) / splat(degree);
        const Value xPx = dot(p.x, w.Px, S.n), qx = dot(p.x, w.q, S.n), by = dot(p.y, w.b, S.m);
        const Value gap = xPx / e.tau + qx + by + e.kappa;
        const Value left =
            max(over_terms(S.n, w.dual, w.Px, w.q, e.tau), over_terms(S.m, w.primal, p.s, w.b, -e.tau));
        const Value terms = max(max(abs(qx), abs(by)), abs(xPx / e.tau));
        const Value open = mu * degree / max(e.tau * terms, splat(1e-300));
        running &= finite(left + mu) & ((left > homogeneous::ENOUGH) | (open > homogeneous::ENOUGH));
        running &= (open > HARDLY_OPEN) | (left <= FALLS * least_left);
        least_left = min(least_left, left);
        if (!any(running))
            break;
        homogeneous::scale(S, w, p, e); // 2
        interior::factor(S, w, p);
        progress.factorizations += select(running, splat(1), Value{});
        progress.newton_steps += select(running, splat(1), Value{});
        fill(e.upper, S.n, [&](int i) { return -w.q[i]; });
        into_frame(S, w.frame, w.b, e.lower);
        solve_refined(S, w, p, e, e.x2, e.y2);
        fill(w.dx, S.n, [&](int i) { return e.x2[i] - p.x[i] / e.tau; });
        multiply_P(S, w.P, w.dx, e.upper);
        const Value across = sum_of(0, S.n, [&](int i) { return w.dx[i] * e.upper[i]; });
        const Value bend =
            across + sum_of(S.zero, S.m, [&](int j) { return p.G[j] * e.y2[j] * e.y2[j]; }) + e.kappa / e.tau;
        homogeneous::complementarity(S, w, p, e, false, Value{}); // 3
        homogeneous::step(S, w, p, e, gap, splat(1), -e.tau * e.kappa, bend);
        Value length = homogeneous::longest(S, w, p, e, 1);
        const Value rest = 1.0 - length, centring = rest * rest * rest;
        homogeneous::complementarity(S, w, p, e, true, centring * mu); // 4
        homogeneous::step(S, w, p, e, gap, 1.0 - centring,
                          centring * mu - e.tau * e.kappa - e.dtau * e.dkappa, bend);
        length = homogeneous::longest(S, w, p, e, interior::SHORT_OF_BOUNDARY); // 5
        short_steps = select(length < SHORT, short_steps + 1.0, Value{});
        const Value moved = infinity_norm(w.dx, S.n) + infinity_norm(p.dy, S.m) + infinity_norm(p.ds, S.m);
        running &= (length > 0.0) & (short_steps < (double)MOST_SHORT) & finite(moved + e.dtau + e.dkappa);
        fill(p.x, S.n, [&](int i) { return select(running, p.x[i] + length * w.dx[i], p.x[i]); });
        fill(p.y, S.m, [&](int j) { return select(running, p.y[j] + length * p.dy[j], p.y[j]); });
        fill(p.s, S.m, [&](int j) {
            return j < S.zero ? Value{} : select(running, p.s[j] + length * p.ds[j], p.s[j]);
        });
        e.tau = select(running, e.tau + length * e.dtau, e.tau);
        e.kappa = select(running, e.kappa + length * e.dkappa, e.kappa);
    }
    const Value inverse = 1.0 / e.tau;
    fill(w.x, S.n, [&](int i) { return p.x[i] * inverse; });
    fill(w.s, S.m, [&](int j) { return p.s[j] * inverse; });
    fill(w.y, S.m, [&](int j) { return p.y[j] * inverse; });
    return mask & (e.kappa < SOLUTION * e.tau);
}

} // namespace cvxfold
