// A primal-dual scaling of the power cone, for the interior-point method.
//
// The barrier of K is f(s) = -log(phi - z^2) - (1 - alpha) log x - alpha log y with phi = (x^alpha y^beta)^2,
// beta = 1 - alpha, at s = (x, y, z) (Chares, "Cones and interior-point algorithms for structured convex
// optimization involving powers and exponentials", 2009). With m = phi^1/2, L = m - |z|, R = m + |z| and of a
// direction
//
//     p = alpha dx/x + beta dy/y     d = dx/x - dy/y     a = m p - sign(z) dz
//
// its Hessian is a sum of squares,
//
//     a^2/L^2 + (2 m p - a)^2/R^2 + p^2 + 2 (beta - alpha) p d
//         + (1 - 3 alpha beta + 2 alpha beta m^2/(L R)) d^2
//
// whose triangular factor in (a, p, d) cancels nothing. -grad f is there (1/L - 1/R, 2 m/R + 1, beta -
// alpha).
//
// The shadow of a dual point v is found by w = (phi - z^2)/z^2: x = (2 alpha rho + beta)/v1, y alike, and z =
// -2/(w v3) with rho = 1 + 1/w, where
//
//     h(w) = log 4 (1 + w) - 2 alpha log((1 + alpha) w + 2 alpha) - 2 beta log((1 + beta) w + 2 beta)
//          = 2 (log |v3| - alpha log v1 - beta log v2)
#pragma once

#include "scaling_cone3.hpp"

namespace cvxfold {

namespace scaling_power {

using scaling_cone3::Vector;

const int ROOT_STEPS = 10;
const double NO_THIRD = 1e-30; // stands for v3 = 0, relative to the other two

// A point of the cone's interior, where `inside`.
struct Primal {
    Vector s;
    double alpha;
    Value left, right; // L and R
    Mask inside;

    Primal(Vector v, double alpha_of_cone) : s(v), alpha(alpha_of_cone) {
        const Value one = splat(1);
        inside = (v.x > 1e-300) & (v.y > 1e-300) & finite(v.x) & finite(v.y) & finite(v.z);
        const Value x = select(inside, v.x, one), y = select(inside, v.y, one);
        const Value mean = exp(alpha * log(x) + (1 - alpha) * log(y)), z = select(inside, v.z, Value{});
        left = mean - abs(z), right = mean + abs(z);
        inside &= left > 0.0;
        left = select(inside, left, one), right = select(inside, right, one);
        s = {x, y, z};
    }

    // -grad f.
    Vector shadow() const {
        const double beta = 1 - alpha;
        const Value psi = left * right, mean = 0.5 * (left + right), rho = mean * mean / psi;
        return {(2 * alpha * rho + beta) / s.x, (2 * beta * rho + alpha) / s.y, -2.0 * s.z / psi};
    }
};

// A point of the dual cone's interior, where `inside`.
struct Dual {
    Vector v;
    double alpha;
    Value right, size; // of the equation; |v3|, or what stands for it
    Mask inside;

    Dual(Vector given, double alpha_of_cone) : v(given), alpha(alpha_of_cone) {
        const double beta = 1 - alpha;
        const Value one = splat(1);
        inside = (v.x > 1e-300) & (v.y > 1e-300) & finite(v.x) & finite(v.y) & finite(v.z);
        v = {select(inside, v.x, one), select(inside, v.y, one), select(inside, v.z, Value{})};
        const Value mean = alpha * log(v.x) + beta * log(v.y);
        size = max(abs(v.z), NO_THIRD * exp(mean));
        right = 2.0 * (log(size) - mean);
        inside &= right < at_infinity();
        right = select(inside, right, at_infinity() - 1.0);
    }

    // h(0), the limit at the boundary.
    Value at_infinity() const {
        return -2.0 * (alpha * log(splat(alpha)) + (1 - alpha) * log(splat(1 - alpha)));
    }

    // 1/e^h is nearly linear in w, and Newton's steps solve that.
    Value root() const {
        const double beta = 1 - alpha, a = 2 * alpha, b = 2 * beta;
        const Value least = splat(1e-18);
        const Value first = exp(-right) - exp(-at_infinity());
        Value w = max(4.0 * first * exp(-a * log(splat(1 + alpha)) - b * log(splat(1 + beta))), least);
        for (int step = 0; step < ROOT_STEPS; step++) {
            const Value of_x = (1 + alpha) * w + a, of_y = (1 + beta) * w + b;
            const Value h = log(4.0 * (1.0 + w)) - a * log(of_x) - b * log(of_y) - right;
            const Value slope = a * (1 + alpha) / of_x + b * (1 + beta) / of_y - 1.0 / (1.0 + w);
            const Value move = (1.0 - exp(min(h, splat(50)))) / slope;
            w = max(w - move, max(0.1 * w, least));
        }
        return w;
    }

    Vector shadow() const {
        const Value theta = 1.0 / root(), rho = 1.0 + theta, z = 2.0 * theta / size;
        return {(2 * alpha * rho + (1 - alpha)) / v.x, (2 * (1 - alpha) * rho + alpha) / v.y,
                select(v.z > 0.0, -z, z)};
    }
};

inline scaling_cone3::Around around(const Primal &primal, const Dual &dual) {
    const double alpha = dual.alpha, beta = 1 - alpha;
    const Value w = dual.root(), theta = 1.0 / w, rho = 1.0 + theta;
    const Value x = (2 * alpha * rho + beta) / dual.v.x, y = (2 * beta * rho + alpha) / dual.v.y;
    const Value z = 2.0 * theta / dual.size, m = 2.0 * sqrt(rho * theta) / dual.size;
    const Value R = m + z, psi = 4.0 * theta / (dual.size * dual.size), L = psi / R;
    const Value sign = select(dual.v.z > 0.0, splat(-1), splat(1));
    // The factor [l11; l21 l22; 0 l32 l33] in (a, p, d), and e of -grad f = F e.
    const Value l11 = sqrt(1.0 / (L * L) + 1.0 / (R * R)), l21 = -2.0 * m / (R * R) / l11;
    const Value l22 = sqrt(1.0 + 4.0 * m * m / (L * L + R * R)), l32 = (beta - alpha) / l22;
    const Value l33 = sqrt(1 - 3 * alpha * beta + 2 * alpha * beta * (m * m / psi) - l32 * l32);
    Value e[3];
    e[0] = (2.0 * z / psi) / l11;
    e[1] = (2.0 * m / R + 1.0 - l21 * e[0]) / l22;
    e[2] = (beta - alpha - l32 * e[1]) / l33;
    // A reflection takes e to the first axis; what the other two become.
    const Value h[3] = {e[0] + sqrt(e[0] * e[0] + e[1] * e[1] + e[2] * e[2]), e[1], e[2]};
    const Value half = 0.5 * (h[0] * h[0] + h[1] * h[1] + h[2] * h[2]);
    Vector f[2], b[2];
    for (int i = 0; i < 2; i++) {
        Value q[3];
        for (int k = 0; k < 3; k++)
            q[k] = (k == i + 1 ? 1.0 : 0.0) - h[k] * h[i + 1] / half;
        const Value of_a = l11 * q[0], of_p = l21 * q[0] + l22 * q[1], of_d = l32 * q[1] + l33 * q[2];
        const Value both = m * of_a + of_p;
        f[i] = {(alpha * both + of_d) / x, (beta * both - of_d) / y, -sign * of_a};
        const Value d = q[2] / l33, p = (q[1] - l32 * d) / l22, a = (q[0] - l21 * p) / l11;
        b[i] = {x * (p + beta * d), y * (p - alpha * d), sign * (m * p - a)};
    }
    return {{x, y, sign * z}, primal.shadow(), f[0], f[1], b[0], b[1]};
}

} // namespace scaling_power
} // namespace cvxfold
