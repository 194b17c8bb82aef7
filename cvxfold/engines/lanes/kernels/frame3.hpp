// A point of R^3 seen from a cone: its projection, and the eigenvectors and eigenvalues of the derivative.
//
// Outside of K and its polar u = p + d, both not zero, and D = DPi(u) has the eigenvectors p with eigenvalue
// 1, d with 0 and p x d with a lambda that the curvature of the cone's boundary decides.
#pragma once

#include "elementary.hpp"
#include "loops.hpp"

namespace cvxfold {

struct Frame3 {
    Pack projection[3];
    Value lambda[3];
    Value axes[9]; // three rows, orthonormal
    Value margin;  // at most the distance to the nearest point without a derivative, and of its order
};

// A point over the power of two that its largest entry begins with, which is exact: so one inside of a cone
// is its own projection to the last bit, and has no multiplier.
struct Scaled3 {
    Value x, y, z, size;
    Mask valid; // finite

    Scaled3() {}

    Scaled3(Value a, Value b, Value c) : size(leading_power(max(max(abs(a), abs(b)), abs(c)))) {
        const Value inverse = 1.0 / size;
        x = a * inverse;
        y = b * inverse;
        z = c * inverse;
        valid = finite(x) & finite(y) & finite(z);
    }
};

// Axes along p, p x d and d, eigenvalues 1, curved and 0; where `flat`, the standard basis and `diagonal`.
inline void set_frame(Frame3 &frame, const Value p[3], const Value d[3], Value curved, Mask flat,
                      const Value diagonal[3]) {
    Value one = splat(1), zero{};
    Value p_inverse = 1.0 / sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2]);
    Value d_inverse = 1.0 / sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    Value v[3], w[3];
    for (int i = 0; i < 3; i++) {
        v[i] = p[i] * p_inverse;
        w[i] = d[i] * d_inverse;
    }
    const Value axes[9] = {
        v[0], v[1], v[2], v[1] * w[2] - v[2] * w[1], v[2] * w[0] - v[0] * w[2], v[0] * w[1] - v[1] * w[0],
        w[0], w[1], w[2]};
    for (int i = 0; i < 9; i++)
        frame.axes[i] = select(flat, i % 4 == 0 ? one : zero, axes[i]);
    frame.lambda[0] = select(flat, diagonal[0], one);
    frame.lambda[1] = select(flat, diagonal[1], curved);
    frame.lambda[2] = select(flat, diagonal[2], zero);
}

} // namespace cvxfold
