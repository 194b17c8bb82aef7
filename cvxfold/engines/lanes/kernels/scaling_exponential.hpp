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
#pragma once

#include "scaling_cone3.hpp"

namespace cvxfold {

namespace scaling_exponential {

using scaling_cone3::combined;
using scaling_cone3::Vector;

const int ROOT_STEPS = 12;
const double CENTRE[] = {-1.051383945322714, 0.556409619469370, 1.258967884768947}; // its own shadow

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

inline scaling_cone3::Around around(const Primal &primal, const Dual &dual) {
    const Vector v = dual.v, shadow = dual.shadow();
    // F of the shadow, and F^-T.
    const Value psi = -1.0 / v.x, y = shadow.y, z = shadow.z;
    const Value a = v.y * psi - psi / y, k = sqrt(1.0 + 2.0 * (y / psi)), half = splat(0.70710678118654752);
    const Vector f1 = {v.x, a / psi, y / (z * psi)}, f2 = {Value{}, half / y, half / z};
    const Vector f3 = {Value{}, k * half / y, -k * half / z};
    const Value by_y = half * y, by_z = half * z, slope = y / z;
    const Vector b1 = {-psi, Value{}, Value{}}, b2 = {a * by_y + slope * by_z, by_y, by_z};
    const Vector b3 = {(a * by_y - slope * by_z) / k, by_y / k, -by_z / k};
    // v = F (1, sqrt 2, 0): what is across that.
    const Value third = splat(0.57735026918962576), two_thirds = splat(0.81649658092772603);
    return {shadow,
            primal.shadow(),
            combined(two_thirds, f1, -third, f2),
            f3,
            combined(two_thirds, b1, -third, b2),
            b3};
}

} // namespace scaling_exponential
} // namespace cvxfold
