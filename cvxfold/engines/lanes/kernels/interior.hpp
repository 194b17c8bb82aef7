// Mehrotra's predictor-corrector interior-point method for orthants, second-order and semidefinite cones, on
// the same K.
//
// For what Newton's method leaves: degenerate programs, whose active set no local method guesses. The scaling
// is Nesterov and Todd's ("Primal-dual interior-point methods for self-scaled cones", 1998), W y = W^-1 s =
// l. On second-order cones W^2 is diagonal in the frame; semidefinite cones work in the scaled space, with
// G = 1 and R^-T in the frame's place (scaling_semidefinite.hpp).
//
// 1. Residuals and mu = s'y / degree.
// 2. Scaling; factor K with G = W^2.
// 3. Predictor: toward the boundary. 4. Corrector: centred, with the predictor's second order.
// 5. Step nearly to the boundary.
#pragma once

#include "kkt.hpp"
#include "newton.hpp"
#include "scaling_second_order.hpp"
#include "scaling_semidefinite.hpp"

namespace cvxfold {

namespace interior {

const int MOST = 50;
const double ENOUGH = 1e-10, SHORT_OF_BOUNDARY = 0.99;
const double RISEN = 10; // residuals that steps lower but for rounding, which is what the rest would be

// Vectors of the method, in memory that Newton's method and the adjoint use at other times.
struct Point {
    Pack *x, *y, *s;          // (n), (m), (m)
    Pack *G, *l;              // W^2 in the frame, l = W y, (m)
    Pack *ds, *dy, *d, *work; // (m); of semidefinite cones d is in the scaled space
    Pack *a, *b;              // (m): W^-1 ds and W dy of semidefinite cones
    Pack *R;                  // of semidefinite cones
    Least least;

    Point(const Shape &S, Workspace &w, Least at_least)
        : x(w.x_before), y(w.y), s(w.s), G(w.E), l(w.lambda), ds(w.turned), dy(w.u_before), d(w.du),
          work(w.u_kept), a(w.found), b(w.found + S.m), R(w.adjoint), least(at_least) {}
};

// Calls visit(size, first row, frame) for each second-order cone; returns the frame that follows.
template <typename Visit> inline Pack *each_second_order(const Shape &S, Pack *frame, Visit visit) {
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++]) {
        visit(S.sizes[c], at, frame);
        frame += second_order::frame_size(S.sizes[c]);
    }
    return frame;
}

// Calls visit(row) for each row of the orthant, as `each` does.
template <typename Visit> inline void each_orthant_row(const Shape &S, Visit visit) {
    each(S.nonnegative, [&](int i) { visit(S.zero + i); });
}

inline int semidefinite_rows_begin(const Shape &S) {
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++)
        at += S.sizes[c];
    return at;
}

// Calls visit(order, first row, M, R) for each semidefinite cone, whose frames begin at `frame`.
template <typename Visit> inline void each_matrix(const Shape &S, const Point &p, Pack *frame, Visit visit) {
    each_semidefinite(S, semidefinite_rows_begin(S), frame,
                      [&](int order, int row, Pack *M) { visit(order, row, M, p.R + (M - frame)); });
}

// G, l and the frames. Equalities have G = delta.
inline void scale(const Shape &S, Workspace &w, Point &p) {
    each(S.zero, [&](int j) { p.G[j] = p.least.delta; });
    each_orthant_row(S, [&](int j) {
        p.G[j] = p.s[j] / p.y[j];
        p.l[j] = sqrt(p.s[j] * p.y[j]);
    });
    Pack *rest = each_second_order(S, w.frame, [&](int size, int at, Pack *frame) {
        scaling_second_order::scale(size, p.s + at, p.y + at, p.G + at, p.l + at, frame, p.work + at);
    });
    Pack *scratch = frame_scratch(S, w.frame);
    each_matrix(S, p, rest, [&](int order, int at, Pack *M, Pack *R) {
        each(semidefinite::rows(order), [&](int j) { p.G[at + j] = splat(1); });
        scaling_semidefinite::scale(order, p.s + at, p.y + at, R, M, p.l + at, scratch);
    });
}

// d = W (l \ e): e = -l o l, and for the corrector -l o l - (W^-1 ds) o (W dy) + centre 1.
CVXFOLD_LONG void complementarity(const Shape &S, Workspace &w, Point &p, bool corrector, Value centre) {
    each_orthant_row(S, [&](int j) {
        Value e = -p.s[j] * p.y[j];
        if (corrector)
            e += centre - p.ds[j] * p.dy[j];
        p.d[j] = e / p.y[j];
    });
    Pack *rest = each_second_order(S, w.frame, [&](int size, int at, const Pack *frame) {
        const scaling_second_order::Corrector correct{frame,     p.G + at,  p.l + at,
                                                      p.ds + at, p.dy + at, w.scratch};
        if (corrector)
            correct(size, centre, p.d + at);
        else
            each(size, [&](int i) { p.d[at + i] = -p.s[at + i]; });
    });
    Pack *scratch = frame_scratch(S, w.frame);
    each_matrix(S, p, rest, [&](int order, int at, Pack *, Pack *) {
        if (corrector)
            scaling_semidefinite::Corrector{p.l + at, p.a + at, p.b + at, scratch}(order, centre, p.d + at);
        else
            scaling_semidefinite::predict(order, p.l + at, p.d + at);
    });
}

// From d: dx into w.dx, dy and ds = d - W^2 dy.
CVXFOLD_LONG void step(const Shape &S, Workspace &w, Point &p) {
    const int matrices = semidefinite_rows_begin(S);
    each(S.m,
         [&](int j) { p.work[j] = -w.primal[j] - (j < S.zero || j >= matrices ? Value{} : Value(p.d[j])); });
    into_frame(S, w.frame, p.work, p.work);
    each(S.m - matrices, [&](int j) { p.work[matrices + j] -= p.d[matrices + j]; });
    each(S.n, [&](int i) { w.right[S.place[i]] = -w.dual[i]; });
    each(S.m, [&](int j) { w.right[S.place[S.n + j]] = p.work[j]; });
    solve_with<1>(S, w, w.newton, {w.frame, nullptr}, w.right);
    scatter(S, w.right, 0, w.dx, p.dy);
    each(S.m, [&](int j) {
        p.work[j] = p.G[j] * p.dy[j];
        if (j >= matrices) {
            p.b[j] = p.dy[j];
            p.a[j] = p.d[j] - p.dy[j];
        }
    });
    out_of_frame(S, w.frame, p.dy, p.dy);
    out_of_frame(S, w.frame, p.work, p.work);
    each(matrices - S.zero, [&](int i) {
        const int j = S.zero + i;
        p.ds[j] = p.d[j] - p.work[j];
    });
    Pack *rest = each_second_order(S, w.frame, [](int, int, Pack *) {}), *scratch = frame_scratch(S, w.frame);
    each_matrix(S, p, rest, [&](int order, int at, Pack *, Pack *R) {
        semidefinite::turn_triangle(order, R, false, p.a + at, p.ds + at, scratch);
    });
}

CVXFOLD_LONG Value longest(const Shape &S, Workspace &w, const Point &p) {
    Value length = splat(1 / SHORT_OF_BOUNDARY);
    each_orthant_row(S, [&](int j) {
        length = select(p.ds[j] < 0.0, min(length, -p.s[j] / p.ds[j]), length);
        length = select(p.dy[j] < 0.0, min(length, -p.y[j] / p.dy[j]), length);
    });
    length = joined(length, Smaller());
    Pack *rest = each_second_order(S, w.frame, [&](int size, int at, Pack *) {
        length = scaling_second_order::to_boundary(size, p.s + at, p.ds + at, length);
        length = scaling_second_order::to_boundary(size, p.y + at, p.dy + at, length);
    });
    Pack *scratch = frame_scratch(S, w.frame);
    each_matrix(S, p, rest, [&](int order, int at, Pack *, Pack *) {
        length = scaling_semidefinite::to_boundary(order, p.l + at, p.a + at, length, scratch);
        length = scaling_semidefinite::to_boundary(order, p.l + at, p.b + at, length, scratch);
    });
    return length;
}

// Moves v, where it is not well inside of the cone, by a multiple of the cone's unit.
CVXFOLD_LONG void move_inside(const Shape &S, Workspace &w, const Point &p, Pack *v) {
    Value inside = splat(1e300);
    each_orthant_row(S, [&](int j) { inside = min(inside, v[j]); });
    inside = joined(inside, Smaller());
    Pack *rest = each_second_order(S, w.frame, [&](int size, int at, Pack *) {
        inside = min(inside, v[at] - sqrt(squared_norm(v + at + 1, size - 1)));
    });
    Pack *scratch = frame_scratch(S, w.frame);
    each_matrix(S, p, rest, [&](int order, int at, Pack *M, Pack *) {
        inside = min(inside, scaling_semidefinite::depth(order, v + at, M, scratch));
    });
    const Value by = select(inside > 1e-3, Value{}, 0.1 - inside);
    each_orthant_row(S, [&](int j) { v[j] += by; });
    each_second_order(S, w.frame, [&](int, int at, Pack *) { set(v[at], v[at] + by); });
    each_matrix(S, p, rest,
                [&](int order, int at, Pack *, Pack *) { scaling_semidefinite::shift(order, v + at, by); });
}

inline void factor(const Shape &S, Workspace &w, const Point &p) {
    if (S.curved())
        rotate_A(S, w.frame, w.A, w.rotated_A);
    assemble(S, w, p.least.sigma, nullptr, w.rotated_A, p.G);
    add_eliminated_by_scaling(S, w, p.G);
    factorize(S, w.K, w.newton, w.target);
}

// s and y that minimize |s|^2/2 and |y|^2/2 with the residuals zero, moved into the cones.
inline void begin(const Shape &S, Workspace &w, Point &p) {
    each(S.m, [&](int j) { p.G[j] = j < S.zero ? p.least.delta : splat(1); });
    assemble(S, w, p.least.sigma, nullptr, w.A, p.G);
    add_eliminated(S, w, p.G);
    factorize(S, w.K, w.newton, w.target);
    each(S.n, [&](int i) { w.right[S.place[i]] = -w.q[i]; });
    each(S.m, [&](int j) { w.right[S.place[S.n + j]] = w.b[j]; });
    solve_with<1>(S, w, w.newton, {nullptr, nullptr}, w.right);
    scatter(S, w.right, 0, p.x, p.y);
    each(S.m, [&](int j) { p.s[j] = j < S.zero ? Value{} : -p.y[j]; });
    move_inside(S, w, p, p.s);
    move_inside(S, w, p, p.y);
}

inline double degree(const Shape &S) {
    int degree = S.nonnegative + S.second_order;
    for (int c = 0; c < S.semidefinite; c++)
        degree += S.orders[c];
    return degree;
}

} // namespace interior

// Whether the method can serve: it knows no exponential and no power cones.
inline bool interior_serves(const Shape &S) { return S.exponential + S.power == 0 && S.m > S.zero; }

// Puts w.x and w.u of the lanes of `mask` to where the method comes to; never worse off, as Newton's method
// follows.
template <typename TimeLeft>
CVXFOLD_LONG void interior_point(const Shape &S, Workspace &w, Progress &progress, Mask mask, Least least,
                                 TimeLeft time_left) {
    using namespace interior;
    Point p(S, w, least);
    const double degree = interior::degree(S);
    begin(S, w, p);
    progress.factorizations += select(mask, splat(1), Value{});
    Mask running = mask;
    Value least_left = splat(infinite());
    for (int iteration = 0; iteration < MOST && time_left(); iteration++) {
        multiply_P(S, w.P, p.x, w.Px); // 1
        each(S.n, [&](int i) { w.dual[i] = w.Px[i] + w.q[i]; });
        add_A_transposed(S, w.A, p.y, w.dual);
        multiply_A(S, w.A, p.x, w.primal);
        Value mu{};
        each(S.m, [&](int j) {
            w.primal[j] += p.s[j] - w.b[j];
            mu += p.s[j] * p.y[j];
        });
        mu = joined(mu, Sum()) / splat(degree);
        Value left = largest(infinity_norm(w.dual, S.n), infinity_norm(w.primal, S.m));
        running &= ((left > ENOUGH) | (mu > ENOUGH)) & finite(left + mu);
        running &= (left <= mu) | (left <= RISEN * least_left);
        least_left = min(least_left, left);
        if (!any(running))
            break;
        scale(S, w, p); // 2
        factor(S, w, p);
        progress.factorizations += select(running, splat(1), Value{});
        progress.newton_steps += select(running, splat(1), Value{});
        complementarity(S, w, p, false, Value{}); // 3
        step(S, w, p);
        Value length = min(longest(S, w, p), splat(1));
        const Value ahead = sum_of(
            S.zero, S.m, [&](int j) { return (p.s[j] + length * p.ds[j]) * (p.y[j] + length * p.dy[j]); });
        Value rest = max(ahead / (degree * max(mu, splat(1e-300))), Value{});
        Value centring = min(rest * rest * rest, splat(1));
        complementarity(S, w, p, true, centring * mu); // 4
        step(S, w, p);
        length = min(SHORT_OF_BOUNDARY * longest(S, w, p), splat(1)); // 5
        each(S.n, [&](int i) { p.x[i] = select(running, p.x[i] + length * w.dx[i], p.x[i]); });
        each(S.m, [&](int j) {
            p.y[j] = select(running, p.y[j] + length * p.dy[j], p.y[j]);
            if (j >= S.zero)
                p.s[j] = select(running, p.s[j] + length * p.ds[j], p.s[j]);
        });
    }
    each(S.n, [&](int i) { w.x[i] = select(mask, p.x[i], w.x[i]); });
    each(S.m, [&](int j) { w.u[j] = select(mask, p.s[j] - p.y[j] / w.R[j], w.u[j]); });
}

} // namespace cvxfold
