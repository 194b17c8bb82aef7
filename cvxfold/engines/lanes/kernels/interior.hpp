// Mehrotra's predictor-corrector interior-point method for orthants and second-order cones, on the same K.
//
// For what Newton's method leaves: degenerate programs, whose active set no local method guesses. The scaling
// is Nesterov and Todd's ("Primal-dual interior-point methods for self-scaled cones", 1998), W y = W^-1 s =
// l. For a second-order cone W^2 = eta^2 Q_w with a w of determinant 1 and eigenvalues theta+, theta- along
// its rays, so in the frame of w (second_order.hpp) it is diagonal: eta^2 (theta+^2, theta-^2, 1, …).
//
// 1. Residuals and mu = s'y / degree.
// 2. Scaling; factor K with G = W^2.
// 3. Predictor: toward the boundary. 4. Corrector: centred, with the predictor's second order.
// 5. Step nearly to the boundary.
#pragma once

#include "kkt.hpp"
#include "newton.hpp"

namespace cvxfold {

namespace interior {

const int MOST = 50;
const double ENOUGH = 1e-10, SHORT_OF_BOUNDARY = 0.99;

// x = l \ d: the solution of l o x = d in the Jordan algebra of the second-order cone. May not work in place.
inline void divide(int size, const Pack *l, const Pack *d, Pack *x) {
    Pack determinant = l[0] * l[0], along = l[0] * d[0];
    for (int i = 1; i < size; i++) {
        determinant -= l[i] * l[i];
        along -= l[i] * d[i];
    }
    x[0] = along / max(determinant, splat(1e-300));
    for (int i = 1; i < size; i++)
        x[i] = (d[i] - x[0] * l[i]) / l[0];
}

// a o b.
inline void multiply(int size, const Pack *a, const Pack *b, Pack *out) {
    Pack first{};
    for (int i = 0; i < size; i++)
        first += a[i] * b[i];
    for (int i = 1; i < size; i++)
        out[i] = a[0] * b[i] + b[0] * a[i];
    out[0] = first;
}

inline Pack determinant(int size, const Pack *s) {
    Pack squares{};
    for (int i = 1; i < size; i++)
        squares += s[i] * s[i];
    Pack norm = sqrt(squares);
    return (s[0] - norm) * (s[0] + norm);
}

// The largest t <= most for which s + t d stays in the cone.
inline Pack to_boundary(int size, const Pack *s, const Pack *d, Pack most) {
    if (size == 1)
        return select(d[0] < 0.0, min(most, -s[0] / d[0]), most);
    Pack a = d[0] * d[0], b = s[0] * d[0];
    for (int i = 1; i < size; i++) {
        a -= d[i] * d[i];
        b -= s[i] * d[i];
    }
    Pack c = max(determinant(size, s), Pack{}), discriminant = b * b - a * c;
    Pack root = sqrt(max(discriminant, Pack{}));
    // Of a t^2 + 2 b t + c = 0 the smallest positive root, without cancellation.
    Pack far = -(b + select(b >= 0.0, root, -root)), infinity = splat(__builtin_inf());
    Pack t1 = ratio(c, far, infinity), t2 = ratio(far, a, infinity);
    Pack t = min(select(t1 > 0.0, t1, infinity), select(t2 > 0.0, t2, infinity));
    t = select(discriminant < 0.0, infinity, t);
    t = min(t, select(d[0] < 0.0, -s[0] / d[0], infinity)); // the other sheet
    return min(most, t);
}

// Vectors of the method, in memory that Newton's method uses at other times.
struct Point {
    Pack *x, *y, *s;          // (n), (m), (m)
    Pack *G, *l;              // W^2 in the frame, l = W y, (m)
    Pack *ds, *dy, *d, *work; // (m)
};

// G, l and, for the second-order cones, the frames. Equalities have G = DELTA.
inline void scale(const Shape &S, Workspace &w, Point &p) {
    for (int j = 0; j < S.zero; j++)
        p.G[j] = splat(DELTA);
    for (int j = S.zero; j < S.separable(); j++) {
        p.G[j] = p.s[j] / p.y[j];
        p.l[j] = sqrt(p.s[j] * p.y[j]);
    }
    int at = S.separable();
    Pack *frame = w.frame;
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c];
        const Pack *s = p.s + at, *y = p.y + at;
        Pack s_root = sqrt(max(determinant(size, s), splat(1e-300)));
        Pack y_root = sqrt(max(determinant(size, y), splat(1e-300)));
        Pack product = s[0] * y[0];
        for (int i = 1; i < size; i++)
            product += s[i] * y[i];
        Pack gamma = sqrt(max(0.5 * (1.0 + product / (s_root * y_root)), splat(0.5)));
        Pack half = 0.5 / gamma, squares{};
        Pack w0 = half * (s[0] / s_root + y[0] / y_root);
        for (int i = 1; i < size; i++) {
            p.work[at + i] = half * (s[i] / s_root - y[i] / y_root);
            squares += p.work[at + i] * p.work[at + i];
        }
        Pack norm = sqrt(squares), plus = w0 + norm, minus = 1.0 / plus, eta2 = s_root / y_root;
        second_order::reflect(size, p.work + at + 1, norm, all(), frame);
        p.G[at] = eta2 * (size > 1 ? plus * plus : splat(1));
        if (size > 1)
            p.G[at + 1] = eta2 * minus * minus;
        for (int i = 2; i < size; i++)
            p.G[at + i] = eta2;
        second_order::into_frame(size, frame, y, p.l + at);
        for (int i = 0; i < size; i++)
            p.l[at + i] *= sqrt(p.G[at + i]);
        second_order::out_of_frame(size, frame, p.l + at, p.l + at);
        frame += second_order::frame_size(size);
        at += size;
    }
}

// out = W a (power = 1) or W^-1 a (power = -1) on the rows of one second-order cone.
inline void apply_W(int size, const Pack *frame, const Pack *G, const Pack *a, Pack *out, int power) {
    second_order::into_frame(size, frame, a, out);
    for (int i = 0; i < size; i++)
        out[i] = power > 0 ? out[i] * sqrt(G[i]) : out[i] / sqrt(G[i]);
    second_order::out_of_frame(size, frame, out, out);
}

// d = W (l \ e): e = -l o l, and for the corrector -l o l - (W^-1 ds) o (W dy) + sigma mu 1.
inline void complementarity(const Shape &S, Workspace &w, Point &p, bool corrector, Pack centre, Pack *cone) {
    for (int j = S.zero; j < S.separable(); j++) {
        Pack e = -p.s[j] * p.y[j];
        if (corrector)
            e += centre - p.ds[j] * p.dy[j];
        p.d[j] = e / p.y[j];
    }
    int at = S.separable();
    const Pack *frame = w.frame;
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c];
        Pack *d = p.d + at;
        if (!corrector) {
            for (int i = 0; i < size; i++)
                d[i] = -p.s[at + i];
        } else {
            Pack *a = cone, *b = cone + size, *e = cone + 2 * size;
            apply_W(size, frame, p.G + at, p.ds + at, a, -1);
            apply_W(size, frame, p.G + at, p.dy + at, b, 1);
            multiply(size, a, b, e);
            multiply(size, p.l + at, p.l + at, a);
            for (int i = 0; i < size; i++)
                e[i] = -a[i] - e[i];
            e[0] += centre;
            divide(size, p.l + at, e, a);
            apply_W(size, frame, p.G + at, a, d, 1);
        }
        frame += second_order::frame_size(size);
        at += size;
    }
}

// From d: dx into w.dx, dy and ds = d - W^2 dy.
inline void step(const Shape &S, Workspace &w, Point &p) {
    for (int j = 0; j < S.m; j++)
        p.work[j] = -w.primal[j] - (j < S.zero ? Pack{} : p.d[j]);
    into_frame(S, w.frame, p.work, p.work);
    for (int i = 0; i < S.n; i++)
        w.right[S.place[i]] = -w.dual[i];
    for (int j = 0; j < S.m; j++)
        w.right[S.place[S.n + j]] = p.work[j];
    solve<1>(S, w.newton, w.right);
    scatter<1>(S, w.right, 0, w.dx, p.dy);
    for (int j = 0; j < S.m; j++)
        p.work[j] = p.G[j] * p.dy[j];
    out_of_frame(S, w.frame, p.dy, p.dy);
    out_of_frame(S, w.frame, p.work, p.work);
    for (int j = S.zero; j < S.m; j++)
        p.ds[j] = p.d[j] - p.work[j];
}

inline Pack longest(const Shape &S, const Point &p) {
    Pack length = splat(1e3);
    for (int j = S.zero; j < S.separable(); j++) {
        length = select(p.ds[j] < 0.0, min(length, -p.s[j] / p.ds[j]), length);
        length = select(p.dy[j] < 0.0, min(length, -p.y[j] / p.dy[j]), length);
    }
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++]) {
        length = to_boundary(S.sizes[c], p.s + at, p.ds + at, length);
        length = to_boundary(S.sizes[c], p.y + at, p.dy + at, length);
    }
    return length;
}

// How far a vector is from the cone's interior: the largest t with v - t 1 in K.
inline Pack depth(const Shape &S, const Pack *v) {
    Pack least = splat(1e300);
    for (int j = S.zero; j < S.separable(); j++)
        least = min(least, v[j]);
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        least = min(least, v[at] - sqrt(squared_norm(v + at + 1, S.sizes[c] - 1)));
    return least;
}

inline void shift(const Shape &S, Pack *v, Pack by) {
    for (int j = S.zero; j < S.separable(); j++)
        v[j] += by;
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        v[at] += by;
}

inline void factor(const Shape &S, Workspace &w, const Point &p) {
    if (S.curved())
        rotate_A(S, w.frame, w.A, w.rotated_A, w.scratch);
    assemble(S, w, splat(SIGMA), nullptr, w.rotated_A, p.G);
    factorize(S, w.K, w.newton, w.target);
}

// s and y that minimize |s|^2/2 and |y|^2/2 with the residuals zero, moved into the cones.
inline void begin(const Shape &S, Workspace &w, Point &p) {
    for (int j = 0; j < S.m; j++)
        p.G[j] = j < S.zero ? splat(DELTA) : splat(1);
    assemble(S, w, splat(SIGMA), nullptr, w.A, p.G);
    factorize(S, w.K, w.newton, w.target);
    for (int i = 0; i < S.n; i++)
        w.right[S.place[i]] = -w.q[i];
    for (int j = 0; j < S.m; j++)
        w.right[S.place[S.n + j]] = w.b[j];
    solve<1>(S, w.newton, w.right);
    scatter<1>(S, w.right, 0, p.x, p.y);
    for (int j = 0; j < S.m; j++)
        p.s[j] = j < S.zero ? Pack{} : -p.y[j];
    for (Pack *v : {p.s, p.y}) {
        Pack inside = depth(S, v);
        shift(S, v, select(inside > 1e-3, Pack{}, 0.1 - inside));
    }
}

} // namespace interior

// Whether the method can serve: it knows orthants and second-order cones only.
inline bool interior_serves(const Shape &S) {
    return S.semidefinite + S.exponential + S.power == 0 && S.m > S.zero;
}

// Puts w.x and w.u of the lanes of `mask` to where the method comes to; never worse off, as Newton's method
// follows.
template <typename TimeLeft>
inline void interior_point(const Shape &S, Workspace &w, Progress &progress, Mask mask, TimeLeft time_left) {
    using namespace interior;
    Point p{w.x_before, w.y, w.s, w.E, w.lambda, w.turned, w.u_before, w.du, w.u_kept};
    const double degree = S.nonnegative + S.second_order;
    begin(S, w, p);
    progress.factorizations += select(mask, splat(1), Pack{});
    Mask running = mask;
    for (int iteration = 0; iteration < MOST && time_left(); iteration++) {
        multiply_P(S, w.P, p.x, w.Px); // 1
        for (int i = 0; i < S.n; i++)
            w.dual[i] = w.Px[i] + w.q[i];
        add_A_transposed(S, w.A, p.y, w.dual);
        multiply_A(S, w.A, p.x, w.primal);
        Pack mu{};
        for (int j = 0; j < S.m; j++) {
            w.primal[j] += p.s[j] - w.b[j];
            mu += p.s[j] * p.y[j];
        }
        mu /= splat(degree);
        Pack left = largest(infinity_norm(w.dual, S.n), infinity_norm(w.primal, S.m));
        running &= ((left > ENOUGH) | (mu > ENOUGH)) & finite(left + mu);
        if (!any(running))
            break;
        scale(S, w, p); // 2
        factor(S, w, p);
        progress.factorizations += select(running, splat(1), Pack{});
        progress.newton_steps += select(running, splat(1), Pack{});
        complementarity(S, w, p, false, Pack{}, w.scratch); // 3
        step(S, w, p);
        Pack length = min(longest(S, p), splat(1)), ahead{};
        for (int j = S.zero; j < S.m; j++)
            ahead += (p.s[j] + length * p.ds[j]) * (p.y[j] + length * p.dy[j]);
        Pack rest = max(ahead / (degree * max(mu, splat(1e-300))), Pack{});
        Pack centring = min(rest * rest * rest, splat(1));
        complementarity(S, w, p, true, centring * mu, w.scratch); // 4
        step(S, w, p);
        length = min(SHORT_OF_BOUNDARY * longest(S, p), splat(1)); // 5
        for (int i = 0; i < S.n; i++)
            p.x[i] = select(running, p.x[i] + length * w.dx[i], p.x[i]);
        for (int j = 0; j < S.m; j++) {
            p.y[j] = select(running, p.y[j] + length * p.dy[j], p.y[j]);
            if (j >= S.zero)
                p.s[j] = select(running, p.s[j] + length * p.ds[j], p.s[j]);
        }
    }
    for (int i = 0; i < S.n; i++)
        w.x[i] = select(mask, p.x[i], w.x[i]);
    for (int j = 0; j < S.m; j++)
        w.u[j] = select(mask, p.s[j] - p.y[j] / w.R[j], w.u[j]);
}

} // namespace cvxfold
