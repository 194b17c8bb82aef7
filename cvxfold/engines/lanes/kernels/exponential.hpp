// The exponential cone cl{(x, y, z) : y > 0, y exp(x/y) <= z}.
//
// A point u = (r, s, t) between K and its polar is the sum of two orthogonal points of their boundaries
// (Friberg, "Projection onto the exponential cone: a univariate root-finding problem", 2023),
//
//     p = y (rho, 1, e^rho)          d = mu (e^rho, (1 - rho) e^rho, -1)          y, mu > 0
//
// with y = ((rho - 1) r + s) / (rho^2 - rho + 1) and mu e^rho = (r - rho s) / (rho^2 - rho + 1); rho is the
// one root of y e^rho - mu = t where both are positive. The derivative's third eigenvalue is
//
//     lambda = y |w|^2 / (y |w|^2 + mu e^rho |v|^2)          v = p / y, w = d / mu
#pragma once

#include "frame3.hpp"
#include "root.hpp"

namespace cvxfold {

namespace exponential {

const double PARTS[] = {1.0 / 64, 1.0 / 4}; // of the slack, tried as a distance to the boundary
const double MODERATE = 20; // |rho| up to which the equation itself is solved, beyond it its logarithm
const double FAR = 100;     // |rho| beyond which the root is an end of its interval, to e^-100
const double FARTHEST = 1e100;
const double IN_K = 0.465,
             IN_POLAR = 0.8; // distances of (-1, 1, 1) to the boundaries of K and K*, rounded down

struct Branch {
    Mask inside, polar, face;
};

inline Branch branch(Value r, Value s, Value t) {
    Value one = splat(1), zero{};
    Mask s_positive = s > zero, r_positive = r > zero;
    Value es = exp(r / select(s_positive, s, one)), er = exp(s / select(r_positive, r, one) - 1.0);
    Branch b;
    b.inside = (s_positive & (s * es <= t)) | ((r <= zero) & (s == zero) & (t >= zero));
    b.polar = (r_positive & (r * er <= -t)) | ((r == zero) & (s <= zero) & (t <= zero));
    b.inside &= ~b.polar; // the origin is in both; D = 0 there
    b.face = (r <= zero) & (s <= zero) & ~b.inside & ~b.polar;
    return b;
}

// The root of y e^rho - mu = t by Newton's method where |rho| is moderate; `missed` tells where it is not.
inline Value moderate_root(Value r, Value s, Value t, Value low, Value high, Value guess, Mask done,
                           Mask &missed) {
    Value a_low = max(low, splat(-MODERATE)), a_high = min(high, splat(MODERATE));
    Value below = a_low, above = a_high;
    missed = ~(below < above);
    Value x = select((guess > below) & (guess < above), guess, 0.5 * (below + above));
    done |= missed;
    for (int step = 0; step < 80 && any(~done); step++) {
        Value e = exp(x), inverse = 1.0 / e, q = x * (x - 1.0) + 1.0, inverse_q = 1.0 / q;
        Value a = (x - 1.0) * r + s, b = r - x * s;
        Value sum = (a * e - b * inverse) * inverse_q, value = sum - t;
        Value slope = ((r + a) * e + (s + b) * inverse) * inverse_q - sum * (2.0 * x - 1.0) * inverse_q;
        Mask negative = value < 0.0;
        below = select(negative, x, below);
        above = select(negative, above, x);
        Value next = x - value / slope;
        Mask outside = ~((next > below) & (next < above));
        Mask narrow = above - below <= 4e-16 * (abs(x) + 1.0);
        Mask close = (abs(next - x) <= 2e-8 * (abs(x) + 1.0)) & ~outside;
        Mask exact = value == 0.0;
        next = select(exact, x, select(outside, 0.5 * (below + above), next));
        x = select(done, x, next);
        done |= close | narrow | exact;
    }
    missed |= (abs(x) > MODERATE - 1e-3) & (x != low) & (x != high);
    return x;
}

// The same in logarithms of both sides of y e^rho + t- = mu + t+, almost linear in rho, which cannot
// overflow.
inline Value any_root(Value r, Value s, Value t, Value low, Value high, Mask done) {
    Value one = splat(1), nan = splat(not_a_number()), zero{};
    Value log_above = log_or_minus_infinity(t), log_below = log_or_minus_infinity(-t);
    auto balance = [&](Value rho, Value &value, Value &slope) {
        Value y = (s - r) + rho * r, mu = r - rho * s, scale = one + rho * (rho - 1.0);
        Value common = (2.0 * rho - 1.0) / scale, log_scale = log(scale);
        Value log_a = log_or_minus_infinity(y) - log_scale + rho,
              log_mu = log_or_minus_infinity(mu) - log_scale - rho;
        Value left = log_of_sum(log_a, log_below), right = log_of_sum(log_mu, log_above);
        value = left - right;
        slope = exp(log_a - left) * (1.0 - common + r / y) + exp(log_mu - right) * (1.0 + common + s / mu);
    };
    Value end = select(low > splat(FAR), low, select(high < splat(-FAR), high, nan));
    end =
        select(end > splat(FARTHEST), splat(FARTHEST), select(end < splat(-FARTHEST), splat(-FARTHEST), end));
    Mask at_end = end == end;
    Value start = min(max(splat(0.5), low + 0.3), high - 0.3);
    start =
        select((start > low) & (start < high), start, select(finite(low + high), 0.5 * (low + high), zero));
    Value x = bracketed_newton(balance, select(at_end, splat(0.5), start), low, high, done | at_end);
    return select(at_end, end, x);
}

// At most the distance of a point of K or its polar to the boundary: u -+ h (-1, 1, 1) is tried for two
// lengths h.
inline Value inner_margin(const Branch &b, Value r, Value s, Value t) {
    Value one = splat(1), zero{}, margin{};
    Mask flat = b.inside | b.polar;
    Value slope = select(b.polar, s / select(r > zero, r, one) - 1.0, r / select(s > zero, s, one));
    Value slack =
        select(b.polar, -t - r * exp(slope), t - s * exp(slope)); // at least the distance, in K's own units
    Value bound = min(max(slack, zero), splat(1));
    for (double part : PARTS) {
        Value h = part * bound, sign = select(b.polar, -h, h);
        Branch moved = branch(r + sign, s - sign, t - sign);
        Mask holds = (b.inside & moved.inside) | (b.polar & moved.polar);
        margin = select(holds, max(margin, select(b.polar, IN_POLAR * h, IN_K * h)), margin);
    }
    return select(flat, margin, zero);
}

// The projection, and the frame too where `frame` is not null. `root` is a guess and becomes the root.
CVXFOLD_LONG void look(Value r, Value s, Value t, Value &root, Pack projection[3], Frame3 *frame,
                       bool with_margin) {
    Value one = splat(1), zero{};
    Value size = max(max(abs(r), abs(s)), abs(t));
    Value inverse = 1.0 / select(size > zero, size, one);
    r *= inverse;
    s *= inverse;
    t *= inverse;
    Mask valid = finite(r) & finite(s) & finite(t);
    Branch b = branch(r, s, t);
    Mask flat = b.inside | b.polar | b.face | ~valid;
    Value rho{};
    if (any(~flat)) {
        Value r_ = select(flat, one, r), s_ = select(flat, one, s), t_ = select(flat, zero, t);
        Value infinity = splat(infinite());
        Value low = select(r_ > zero, 1.0 - s_ / r_, -infinity), high = select(s_ > zero, r_ / s_, infinity);
        Mask missed;
        rho = moderate_root(r_, s_, t_, low, high, root, flat, missed);
        missed &= ~flat;
        if (any(missed))
            rho = select(missed, any_root(r_, s_, t_, low, high, ~missed), rho);
        root = select(flat, root, rho);
    }
    Mask positive = rho > zero;
    Value e = exp(-abs(rho)), q = rho * (rho - 1.0) + 1.0;
    Value first = ((rho - 1.0) * r + s) / q, second = (r - rho * s) / q;
    // Directions of p and d, divided by e^rho where rho > 0, so that nothing overflows.
    Value v[3] = {select(positive, rho * e, rho), select(positive, e, one), select(positive, one, e)};
    Value w[3] = {select(positive, one, e), select(positive, 1.0 - rho, (1.0 - rho) * e),
                  select(positive, -e, -one)};
    // Of two formulas for each coefficient the one that does not cancel.
    Value on_v = max(select(positive, t + e * second, first), zero);
    Value on_w = max(select(positive, second, select(t < zero, e * first - t, second / e)), zero);
    Value p[3] = {select(positive, on_v * v[0], r - on_w * e),
                  select(positive, on_v * v[1], s - on_w * (1.0 - rho) * e),
                  select(positive, on_v * v[2], first * e)};
    Mask in_K = b.inside, up = b.face & (t > zero);
    Value diagonal[3] = {select(in_K | b.face, one, zero), select(in_K, one, zero),
                         select(in_K | up, one, zero)};
    const Value u[3] = {r, s, t};
    fill(projection, 3,
         [&](int i) { return select(valid, size * select(flat, diagonal[i] * u[i], p[i]), u[i] * size); });
    if (!frame)
        return;
    Value vv = v[0] * v[0] + v[1] * v[1] + v[2] * v[2], ww = w[0] * w[0] + w[1] * w[1] + w[2] * w[2];
    Value bend_w = on_v * ww, bend_v = on_w * vv;
    bend_w = max(select(positive, e * bend_w, bend_w), splat(2.3e-308));
    bend_v = select(positive, bend_v, e * bend_v);
    set_frame(*frame, v, w, bend_w / (bend_w + bend_v), flat, diagonal);
    if (!with_margin)
        return;
    Value lengths = min(on_v * sqrt(vv), on_w * sqrt(ww));
    Value r_part = max(r, zero), s_part = max(s, zero);
    Value between = min(lengths, sqrt(r_part * r_part + s_part * s_part));
    Value octant = min(min(abs(r), abs(s)), abs(t)); // on the face's branch t = 0 is a kink as well
    Value nearest = select(b.face, octant, between);
    if (any(b.inside | b.polar))
        nearest = select(b.inside | b.polar, inner_margin(b, r, s, t), nearest);
    frame->margin = size * nearest;
}

} // namespace exponential
} // namespace cvxfold
