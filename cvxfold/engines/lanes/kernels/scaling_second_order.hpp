// Nesterov and Todd's scaling of the second-order cone, for the interior-point method.
//
// W^2 = eta^2 Q_w with a w of determinant 1 and eigenvalues theta+, theta- along its rays, so in the frame of
// w (second_order.hpp) it is diagonal: eta^2 (theta+^2, theta-^2, 1, ...).
#pragma once

#include "second_order.hpp"

namespace cvxfold {

namespace scaling_second_order {

// x = l \ d: the solution of l o x = d in the Jordan algebra of the second-order cone. May not work in place.
inline void divide(int size, const Pack *l, const Pack *d, Pack *x) {
    Value determinant = l[0] * l[0], along = l[0] * d[0];
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
    Value first{};
    for (int i = 0; i < size; i++)
        first += a[i] * b[i];
    for (int i = 1; i < size; i++)
        out[i] = a[0] * b[i] + b[0] * a[i];
    out[0] = first;
}

inline Value determinant(int size, const Pack *s) {
    Value squares{};
    for (int i = 1; i < size; i++)
        squares += s[i] * s[i];
    Value norm = sqrt(squares);
    return (s[0] - norm) * (s[0] + norm);
}

// The largest t <= most for which s + t d stays in the cone.
inline Value to_boundary(int size, const Pack *s, const Pack *d, Value most) {
    if (size == 1)
        return select(d[0] < 0.0, min(most, -s[0] / d[0]), most);
    Value a = d[0] * d[0], b = s[0] * d[0];
    for (int i = 1; i < size; i++) {
        a -= d[i] * d[i];
        b -= s[i] * d[i];
    }
    Value c = max(determinant(size, s), Value{}), discriminant = b * b - a * c;
    Value root = sqrt(max(discriminant, Value{}));
    // Of a t^2 + 2 b t + c = 0 the smallest positive root, without cancellation.
    Value far = -(b + select(b >= 0.0, root, -root)), infinity = splat(infinite());
    Value t1 = ratio(c, far, infinity), t2 = ratio(far, a, infinity);
    Value t = min(select(t1 > 0.0, t1, infinity), select(t2 > 0.0, t2, infinity));
    t = select(discriminant < 0.0, infinity, t);
    t = min(t, select(d[0] < 0.0, -s[0] / d[0], infinity)); // the other sheet
    return min(most, t);
}

// G = W^2 in the frame, the frame, and l = W y.
inline void scale(int size, const Pack *s, const Pack *y, Pack *G, Pack *l, Pack *frame, Pack *work) {
    Value s_root = sqrt(max(determinant(size, s), splat(1e-300)));
    Value y_root = sqrt(max(determinant(size, y), splat(1e-300)));
    Value product = s[0] * y[0];
    for (int i = 1; i < size; i++)
        product += s[i] * y[i];
    Value gamma = sqrt(max(0.5 * (1.0 + product / (s_root * y_root)), splat(0.5)));
    Value half = 0.5 / gamma, squares{};
    Value w0 = half * (s[0] / s_root + y[0] / y_root);
    for (int i = 1; i < size; i++) {
        work[i] = half * (s[i] / s_root - y[i] / y_root);
        squares += work[i] * work[i];
    }
    Value norm = sqrt(squares), plus = w0 + norm, minus = 1.0 / plus, eta2 = s_root / y_root;
    second_order::reflect(size, work + 1, norm, all(), frame);
    G[0] = eta2 * (size > 1 ? plus * plus : splat(1));
    if (size > 1)
        G[1] = eta2 * minus * minus;
    for (int i = 2; i < size; i++)
        G[i] = eta2;
    second_order::into_frame(size, frame, y, l);
    fill(l, size, [&](int i) { return l[i] * (sqrt(G[i])); });
    second_order::out_of_frame(size, frame, l, l);
}

// out = W a (power = 1) or W^-1 a (power = -1) on the rows of one second-order cone.
inline void apply_W(int size, const Pack *frame, const Pack *G, const Pack *a, Pack *out, int power) {
    second_order::into_frame(size, frame, a, out);
    fill(out, size, [&](int i) { return power > 0 ? out[i] * sqrt(G[i]) : out[i] / sqrt(G[i]); });
    second_order::out_of_frame(size, frame, out, out);
}

// d = W (l \ (centre 1 - l o l - (W^-1 ds) o (W dy))). scratch: (3 size).
struct Corrector {
    const Pack *frame, *G, *l, *ds, *dy;
    Pack *scratch;

    void operator()(int size, Value centre, Pack *d) const {
        Pack *a = scratch, *b = scratch + size, *e = scratch + 2 * size;
        apply_W(size, frame, G, ds, a, -1);
        apply_W(size, frame, G, dy, b, 1);
        multiply(size, a, b, e);
        multiply(size, l, l, a);
        fill(e, size, [&](int i) { return -a[i] - e[i]; });
        e[0] += centre;
        divide(size, l, e, a);
        apply_W(size, frame, G, a, d, 1);
    }
};

} // namespace scaling_second_order
} // namespace cvxfold
