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
    const Value determinant = fold(1, size, l[0] * l[0], [&](int i) { return -(l[i] * l[i]); }, Sum());
    const Value along = fold(1, size, l[0] * d[0], [&](int i) { return -(l[i] * d[i]); }, Sum());
    const Value first = along / max(determinant, splat(1e-300));
    each(size, [&](int i) { x[i] = i ? (d[i] - first * l[i]) / l[0] : first; });
}

// a o b. May not work in place.
inline void multiply(int size, const Pack *a, const Pack *b, Pack *out) {
    const Value first = sum_of(0, size, [&](int i) { return a[i] * b[i]; });
    each(size, [&](int i) { out[i] = i ? a[0] * b[i] + b[0] * a[i] : first; });
}

inline Value determinant(int size, const Pack *s) {
    const Value norm = sqrt(second_order::squared_sum(1, size, s));
    return (s[0] - norm) * (s[0] + norm);
}

// The largest t <= most for which s + t d stays in the cone.
CVXFOLD_LONG Value to_boundary(int size, const Pack *s, const Pack *d, Value most) {
    if (size == 1)
        return select(d[0] < 0.0, min(most, -s[0] / d[0]), most);
    const Value a = fold(1, size, d[0] * d[0], [&](int i) { return -(d[i] * d[i]); }, Sum());
    const Value b = fold(1, size, s[0] * d[0], [&](int i) { return -(s[i] * d[i]); }, Sum());
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
    Value product = fold(1, size, s[0] * y[0], [&](int i) { return s[i] * y[i]; }, Sum());
    Value gamma = sqrt(max(0.5 * (1.0 + product / (s_root * y_root)), splat(0.5)));
    Value half = 0.5 / gamma, squares{};
    Value w0 = half * (s[0] / s_root + y[0] / y_root);
    each(size - 1, [&](int i) {
        const Value entry = half * (s[i + 1] / s_root - y[i + 1] / y_root);
        work[i + 1] = entry;
        squares += entry * entry;
    });
    Value norm = sqrt(joined(squares, Sum())), plus = w0 + norm, minus = 1.0 / plus, eta2 = s_root / y_root;
    second_order::reflect(size, work + 1, norm, all(), frame);
    const Value ends[2] = {eta2 * (size > 1 ? plus * plus : splat(1)), eta2 * minus * minus};
    each(size, [&](int i) { G[i] = i < 2 ? ends[i] : eta2; });
    second_order::into_frame(size, frame, y, l);
    each(size, [&](int i) { l[i] = l[i] * (sqrt(G[i])); });
    second_order::out_of_frame(size, frame, l, l);
}

// out = W a (power = 1) or W^-1 a (power = -1) on the rows of one second-order cone.
CVXFOLD_LONG void apply_W(int size, const Pack *frame, const Pack *G, const Pack *a, Pack *out, int power) {
    second_order::into_frame(size, frame, a, out);
    each(size, [&](int i) { out[i] = power > 0 ? out[i] * sqrt(G[i]) : out[i] / sqrt(G[i]); });
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
        each(size, [&](int i) {
            const Value rest = -a[i] - e[i];
            e[i] = i ? rest : rest + centre;
        });
        divide(size, l, e, a);
        apply_W(size, frame, G, a, d, 1);
    }
};

} // namespace scaling_second_order
} // namespace cvxfold
