// The 3-d power cone {(x, y, z) : x^alpha y^(1 - alpha) >= |z|, x, y >= 0}.
//
// A point u = (a, b, c) between K and its polar is p + d with p = (x, y, +-r) on the boundary of K and
// d = (|c| - r) (-alpha r/x, -(1 - alpha) r/y, +-1) on that of K° (Hien, "Differential properties of
// Euclidean projection onto power cone", 2015), where
//
//     x = (a + sqrt(a^2 + 4 alpha r (|c| - r))) / 2          y likewise with b and 1 - alpha
//
// and r is the one root of r = x^alpha y^(1 - alpha), found in logarithms with r = |c| / (1 + e^-tau). Then
//
//     lambda = S / (S + alpha (1 - alpha) r (|c| - r) |p|^2)
//     S = x^2 y^2 + alpha^2 r^2 y^2 + (1 - alpha)^2 r^2 x^2
#pragma once

#include "frame3.hpp"
#include "root.hpp"

namespace cvxfold {

namespace power {

const double PARTS[] = {1.0 / 64, 1.0 / 4}; // of the slack, tried as a distance to the boundary
const double FARTHEST =
    150; // |tau|: e^-150 is nothing beside any other length, and its powers do not underflow
const double NOTHING = 1e-40; // stands for c = 0, relative to the size of the point
const double INNER = 0.7;     // distance of (1, 1, 0) to the boundaries of K and K*, rounded down

struct Branch {
    Mask inside, polar;
    Value slack;
};

inline Value power_of(Value x, double exponent) {
    Mask positive = x > splat(2.3e-308);
    return select(positive, exp(exponent * log(select(positive, x, splat(1)))), Value{});
}

inline Branch branch(double alpha, Value a, Value b, Value c) {
    Value zero{}, length = abs(c);
    Value mean = power_of(max(a, zero), alpha) * power_of(max(b, zero), 1 - alpha);
    Value polar_mean =
        power_of(max(-a, zero) / alpha, alpha) * power_of(max(-b, zero) / (1 - alpha), 1 - alpha);
    Branch branch;
    branch.polar = (a <= zero) & (b <= zero) & (polar_mean >= length);
    branch.inside = (a >= zero) & (b >= zero) & (mean >= length) & ~branch.polar;
    branch.slack = select(branch.polar, polar_mean, mean) - length;
    return branch;
}

// The positive root of x^2 - a x = k, without cancellation.
inline Value positive_root(Value a, Value k) {
    Value root = sqrt(a * a + 4.0 * k);
    return select(a >= 0.0, 0.5 * (a + root), 2.0 * k / (root - a));
}

struct Point {
    Value x, y, r, rest;
};

inline Point point_at(double alpha, Value a, Value b, Value c, Value tau) {
    Value small = exp(-abs(tau)), near = 1.0 / (1.0 + small), far = small * near;
    Mask positive = tau >= 0.0;
    Point p;
    p.r = c * select(positive, near, far);
    p.rest = c * select(positive, far, near);
    p.x = positive_root(a, alpha * p.r * p.rest);
    p.y = positive_root(b, (1 - alpha) * p.r * p.rest);
    return p;
}

// At most the distance of a point of K or its polar to the boundary: u -+ h (1, 1, 0) is tried for two
// lengths h.
inline Value inner_margin(double alpha, const Branch &b, Value x, Value y, Value z) {
    Value margin{}, bound = min(max(b.slack, Value{}), splat(1));
    for (double part : PARTS) {
        Value h = part * bound, sign = select(b.polar, -h, h);
        Branch moved = branch(alpha, x - sign, y - sign, z);
        Mask holds = (b.inside & moved.inside) | (b.polar & moved.polar);
        margin = select(holds, max(margin, INNER * h), margin);
    }
    return margin;
}

struct Seen {
    Scaled3 u;
    Mask flat; // where no root is sought
    Branch branch;
    Value a_, b_, length; // of a point with a root, where this one is flat
};

inline Seen seen(double alpha, Value a, Value b, Value c) {
    Seen p;
    p.u = Scaled3(a, b, c);
    p.branch = branch(alpha, p.u.x, p.u.y, p.u.z);
    p.flat = p.branch.inside | p.branch.polar | ~p.u.valid;
    p.a_ = select(p.flat, Value{}, p.u.x);
    p.b_ = select(p.flat, Value{}, p.u.y);
    p.length = select(p.flat, splat(1), max(abs(p.u.z), splat(NOTHING)));
    return p;
}

// Where tau is looked for, from a guess.
inline Bracket bracket(const Seen &p, Value guess) {
    const Value end = splat(FARTHEST);
    return Bracket(select(abs(guess) < end, guess, Value{}), -end, end, p.flat);
}

inline void balance(double alpha, const Seen &seen, Value tau, Value &value, Value &move) {
    const double beta = 1 - alpha;
    Point p = point_at(alpha, seen.a_, seen.b_, seen.length, tau);
    // x^2 - a x = alpha r (c - r) and dr/dtau = r (c - r)/c give the logarithmic slopes of x and y.
    Value change = p.r * p.rest * (p.rest - p.r) / seen.length;
    value = log(p.r) - alpha * log(p.x) - beta * log(p.y);
    move = value / (p.rest / seen.length - alpha * alpha * change / (p.x * (2.0 * p.x - seen.a_)) -
                    beta * beta * change / (p.y * (2.0 * p.y - seen.b_)));
}

// The projection of a point with this tau, zero where it is flat, and the frame too where `frame` is not
// null.
CVXFOLD_LONG void look(double alpha, const Seen &seen, Value tau, Pack projection[3], Frame3 *frame,
                       bool with_margin) {
    const double beta = 1 - alpha;
    const Value one = splat(1), zero{}, a = seen.u.x, b = seen.u.y, c = seen.u.z, size = seen.u.size;
    const Branch &where = seen.branch;
    const Mask flat = seen.flat, valid = seen.u.valid;
    Point at = point_at(alpha, seen.a_, seen.b_, seen.length, tau);
    Value sign = select(c < zero, -one, one);
    Value p[3] = {at.x, at.y, sign * at.r};
    Value d[3] = {-alpha * at.r / at.x, -beta * at.r / at.y, sign};
    Value in_K = select(where.inside, one, zero);
    const Value u[3] = {a, b, c};
    for (int i = 0; i < 3; i++)
        projection[i] = select(valid, size * select(flat, in_K * u[i], p[i]), u[i] * size);
    if (!frame)
        return;
    // lambda with S and the rest divided by x^2 y^2, so that nothing underflows.
    Value dd = d[0] * d[0] + d[1] * d[1] + 1.0;
    Value bends = alpha * beta * (at.r / at.x) * (at.rest / at.y) *
                  (at.x / at.y + at.y / at.x + (at.r / at.x) * (at.r / at.y));
    const Value diagonal[3] = {in_K, in_K, in_K};
    set_frame(*frame, p, d, 1.0 / (1.0 + bends / dd), flat, diagonal);
    if (!with_margin)
        return;
    Value pp = at.x * at.x + at.y * at.y + at.r * at.r;
    Value nearest = min(sqrt(pp), at.rest * sqrt(dd));
    if (any(flat))
        nearest = select(flat, inner_margin(alpha, where, a, b, c), nearest);
    frame->margin = size * nearest;
}

} // namespace power
} // namespace cvxfold
