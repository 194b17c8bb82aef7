// A primal-dual scaling of the exponential cone, for the interior-point method.
//
// The barrier of K is f(s) = -log psi - log y - log z with psi = y log(z/y) - x at s = (x, y, z). Its Hessian
// is F F' with the columns
//
//     (-1, log(z/y) - 1, y/z)/psi     (0, 1/y, 1/z)/sqrt 2     sqrt(1 + 2 y/psi) (0, 1/y, -1/z)/sqrt 2
//
// The shadow of a dual point v is the s' with -grad f(s') = v, which one equation in one unknown finds:
// with v = (v1, v2, v3) and g = psi/y,
//
//     g + log(1 + g) = 1 - v2/v1 + log(v3/-v1)
//
// H = B B' is Broyden, Fletcher, Goldfarb and Shanno's update of mu times the dual barrier's Hessian,
// (F F')^-1 at the shadow, with H v = s and, where they can be told apart, H v' = s' for the shadow v' of s
// (Tuncel, "Generalization of primal-dual interior-point methods to convex optimization problems in conic
// form", 2001; Dahl and Andersen, "A primal-dual interior-point algorithm for nonsymmetric exponential-cone
// optimization", 2022). Nothing is subtracted from H: the columns of B and the rows of B^-1 are both known.
#pragma once

#include "boundary.hpp"
#include "elementary.hpp"
#include "loops.hpp"

namespace cvxfold {

namespace scaling_exponential {

const int ROOT_STEPS = 12;
const int BISECTIONS = 5;
const double APART = 1e-7;    // of mu mu' over 1, where a point and the other's shadow can be told apart
const double FARTHEST = 1e-3; // of 1/(mu mu') in a neighbourhood of the central path
const double CENTRE[] = {-1.051383945322714, 0.556409619469370, 1.258967884768947}; // its own shadow

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

// A point of the cone's interior, where `inside`.
struct Primal {
    Vector s;
    Value log_ratio, psi; // log(z/y)
    Mask inside;

    explicit Primal(Vector v) : s(v) {
        const Value one = splat(1);
        inside = (v.y > 0.0) & (v.z > 0.0) & finite(v.x) & finite(v.y) & finite(v.z);
        const Value ratio = select(inside, v.z, one) / select(inside, v.y, one);
        inside &= (ratio > 1e-300) & (ratio < 1e300);
        log_ratio = log(select(inside, ratio, one));
        psi = v.y * log_ratio - v.x;
        inside &= psi > 0.0;
        psi = select(inside, psi, one);
        s = {select(inside, v.x, Value{}), select(inside, v.y, one), select(inside, v.z, one)};
    }

    // -grad f.
    Vector shadow() const {
        const Value inverse = 1.0 / psi;
        return {-inverse, fused(log_ratio - 1.0, inverse, 1.0 / s.y), (s.y * inverse + 1.0) / s.z};
    }
};

// A point of the dual cone's interior, where `inside`.
struct Dual {
    Vector v;
    Value right; // of the equation
    Mask inside;

    explicit Dual(Vector given) : v(given) {
        inside = (v.x < 0.0) & (v.z > 0.0) & finite(v.x) & finite(v.y) & finite(v.z);
        const Value ratio = select(inside, v.z, splat(1)) / select(inside, -v.x, splat(1));
        inside &= (ratio > 1e-300) & (ratio < 1e300);
        v = {select(inside, v.x, splat(-1)), select(inside, v.y, Value{}), select(inside, v.z, splat(1))};
        right = 1.0 - v.y / v.x + log(select(inside, ratio, splat(1)));
        inside &= right > 0.0;
        right = select(inside, right, splat(1));
    }

    // The root's left side rises and is concave: from below Newton's steps rise to it.
    Vector shadow() const {
        Value g = 0.5 * right;
        for (int step = 0; step < ROOT_STEPS; step++) {
            const Value rest = right - g - log(1.0 + g);
            g = g + rest * (1.0 + g) / (2.0 + g);
        }
        g = max(g, 0.5 * right);
        const Value psi = -1.0 / v.x, y = psi / g;
        return {y * (1.0 - v.y / v.x) - 2.0 * psi, y, (1.0 + 1.0 / g) / v.z};
    }
};

// B and the rows of B^-1 (9 each), and the shadow of the dual point (3).
inline void scale(const Pack *s_at, const Pack *v_at, Pack *B, Pack *inverse, Pack *shadow_at) {
    const Primal primal(at(s_at));
    const Dual dual(at(v_at));
    const Vector s = primal.s, v = dual.v, shadow = dual.shadow();
    const Value product = max(dot(s, v), splat(1e-300)), mu = product / 3.0, root = sqrt(mu);
    // F of the shadow, and F^-T.
    const Value psi = -1.0 / v.x, y = shadow.y, z = shadow.z;
    const Value a = v.y * psi - psi / y, k = sqrt(1.0 + 2.0 * (y / psi)), half = splat(0.70710678118654752);
    const Vector f1 = {v.x, a / psi, y / (z * psi)}, f2 = {Value{}, half / y, half / z};
    const Vector f3 = {Value{}, k * half / y, -k * half / z};
    const Value by_y = half * y, by_z = half * z, slope = y / z;
    const Vector b1 = {-psi, Value{}, Value{}}, b2 = {a * by_y + slope * by_z, by_y, by_z};
    const Vector b3 = {(a * by_y - slope * by_z) / k, by_y / k, -by_z / k};
    // v = F (1, sqrt 2, 0): the directions across that, then s in its place.
    const Value third = splat(0.57735026918962576), two_thirds = splat(0.81649658092772603);
    Vector c2 = combined(root * two_thirds, b1, -root * third, b2);
    Vector c3 = {root * b3.x, root * b3.y, root * b3.z};
    Vector d2 = combined(two_thirds / root, f1, -third / root, f2);
    Vector d3 = {f3.x / root, f3.y / root, f3.z / root};
    d2 = combined(splat(1), d2, -dot(d2, s) / product, v);
    d3 = combined(splat(1), d3, -dot(d3, s) / product, v);
    // The same with the shadows' part, which is orthogonal to the other point.
    const Vector other = primal.shadow();
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
inline Value to_boundary(const Pack *s, const Pack *ds, const Pack *v, const Pack *dv, Value most) {
    const auto inside = [&](Value t) {
        const Primal primal(along(s, ds, t));
        const Dual dual(along(v, dv, t));
        const Mask near = dot(primal.s, dual.v) * dot(primal.shadow(), dual.shadow()) * FARTHEST <= 9.0;
        return primal.inside & dual.inside & near;
    };
    return longest_inside(inside, most, BISECTIONS);
}

} // namespace scaling_exponential
} // namespace cvxfold
