// What primal-dual scalings of cones in R^3 that are not symmetric have in common, for the interior-point
// method.
//
// H = B B' is Broyden, Fletcher, Goldfarb and Shanno's update of mu times the dual barrier's Hessian at the
// shadow of the dual point v, the s' with -grad f(s') = v, with H v = s and, where they can be told apart, H
// v' = s' for the shadow v' of s (Tuncel, "Generalization of primal-dual interior-point methods to convex
// optimization problems in conic form", 2001; Dahl and Andersen, "A primal-dual interior-point algorithm for
// nonsymmetric exponential-cone optimization", 2022). Nothing is subtracted from H: the columns of B and the
// rows of B^-1 are both known.
#pragma once

#include "boundary.hpp"
#include "elementary.hpp"
#include "loops.hpp"

namespace cvxfold {

namespace scaling_cone3 {

const int BISECTIONS = 5;
const double APART = 1e-7;    // of mu mu' over 1, where a point and the other's shadow can be told apart
const double FARTHEST = 1e-3; // of 1/(mu mu') in a neighbourhood of the central path

struct Vector {
    Value x, y, z;
};

inline Vector at(const Pack *v) { return {v[0], v[1], v[2]}; }

inline Vector along(const Pack *v, const Pack *d, Value t) {
    return {v[0] + t * d[0], v[1] + t * d[1], v[2] + t * d[2]};
}

inline Value dot(Vector a, Vector b) { return fused(a.z, b.z, fused(a.y, b.y, a.x * b.x)); }

inline Vector combined(Value s, Vector a, Value t, Vector b) {
    return {fused(s, a.x, t * b.x), fused(s, a.y, t * b.y), fused(s, a.z, t * b.z)};
}

inline void put(Pack *to, Vector v) { to[0] = v.x, to[1] = v.y, to[2] = v.z; }

// Both shadows, and two columns of a factor F of the barrier's Hessian at that of v, with v = sqrt 3 times
// the first one, and of F^-T.
struct Around {
    Vector shadow, other, f2, f3, b2, b3;
};

// B and the rows of B^-1 (9 each), and the shadow of the dual point (3).
inline void scale(Vector s, Vector v, const Around &around, Pack *B, Pack *inverse, Pack *shadow_at) {
    const Vector shadow = around.shadow, other = around.other;
    const Value product = max(dot(s, v), splat(1e-300)), mu = product / 3.0, root = sqrt(mu);
    const auto times = [](Vector a, Value by) -> Vector { return {a.x * by, a.y * by, a.z * by}; };
    // The directions across v, then s in its place.
    Vector c2 = times(around.b2, root), c3 = times(around.b3, root);
    Vector d2 = times(around.f2, 1.0 / root), d3 = times(around.f3, 1.0 / root);
    d2 = combined(splat(1), d2, -dot(d2, s) / product, v);
    d3 = combined(splat(1), d3, -dot(d3, s) / product, v);
    // The same with the shadows' part, which is orthogonal to the other point.
    const Vector ds = combined(splat(1), s, -mu, shadow), dv = combined(splat(1), v, -mu, other);
    const Value apart = dot(ds, dv);
    const Mask told = apart > APART * product;
    const Value safe = select(told, apart, splat(1)), length = sqrt(safe);
    Value of2 = dot(c2, dv), of3 = dot(c3, dv);
    const Value norm = sqrt(max(of2 * of2 + of3 * of3, splat(1e-300)));
    of2 = of2 / norm, of3 = of3 / norm;
    const Vector n = combined(-of3, c2, of2, c3);
    Vector n_dual = combined(-of3, d2, of2, d3);
    n_dual = combined(splat(1), n_dual, -dot(n_dual, ds) / safe, dv);
    const auto either = [&](Vector yes, Vector no) -> Vector {
        return {select(told, yes.x, no.x), select(told, yes.y, no.y), select(told, yes.z, no.z)};
    };
    c2 = either({ds.x / length, ds.y / length, ds.z / length}, c2);
    d2 = either({dv.x / length, dv.y / length, dv.z / length}, d2);
    c3 = either(n, c3), d3 = either(n_dual, d3);
    const Value size = sqrt(product);
    put(B, {s.x / size, s.y / size, s.z / size});
    put(B + 3, c2);
    put(B + 6, c3);
    put(inverse, {v.x / size, v.y / size, v.z / size});
    put(inverse + 3, d2);
    put(inverse + 6, d3);
    put(shadow_at, shadow);
}

// A t <= most, about the largest, for which s + t ds and v + t dv are inside and not far from each other's
// shadow.
template <typename Primal, typename Dual, typename... Kind>
inline Value to_boundary(const Pack *s, const Pack *ds, const Pack *v, const Pack *dv, Value most,
                         Kind... kind) {
    const auto inside = [&](Value t) {
        const Primal primal(along(s, ds, t), kind...);
        const Dual dual(along(v, dv, t), kind...);
        const Mask near = dot(primal.s, dual.v) * dot(primal.shadow(), dual.shadow()) * FARTHEST <= 9.0;
        return primal.inside & dual.inside & near;
    };
    return longest_inside(inside, most, BISECTIONS);
}

} // namespace scaling_cone3
} // namespace cvxfold
