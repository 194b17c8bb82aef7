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
const double MODERATE = 20;                 // |rho| up to which e^rho is formed, beyond it its logarithm
const double FAR = 100; // |rho| beyond which the root is an end of its interval, to e^-100
const double FARTHEST = 1e100;
const double IN_K = 0.465,
             IN_POLAR = 0.8; // distances of (-1, 1, 1) to the boundaries of K and K*, rounded down

struct Branch {
    Mask inside, polar, face;
    Value near; // about the root, near where K or its polar begins
    Value off;  // from the end of the interval there
};

// Where t > 0 the boundary of K is y = s, mu = 0, rho = r/s; else that of the polar y = 0, mu e^rho = r,
// 1 - rho = s/r. With k for the quotient, f for e^k or e^(k - 1) and c = |t|/s or |t|/r a step of Newton's
// method from there has the length (f - c) (k^2 - k + 1) / ((k^2 - 2 k + 2) f + 1/f).
inline Branch branch(Value r, Value s, Value t) {
    const Value one = splat(1), zero{};
    const Mask above = t > zero;
    const Value base = select(above, s, r), positive = select(base > zero, base, one);
    const Value k = select(above, r, s) / positive, f = exp(select(above, k, k - 1.0));
    const Mask within = (base > zero) & (base * f <= abs(t));
    Branch b;
    b.inside = (above & within) | ((r <= zero) & (s == zero) & (t >= zero));
    b.polar = (~above & within) | ((r == zero) & (s <= zero) & (t <= zero));
    b.inside &= ~b.polar; // the origin is in both; D = 0 there
    b.face = (r <= zero) & (s <= zero) & ~b.inside & ~b.polar;
    const Value square = k * (k - 1.0) + 1.0;
    b.off = select(base > zero, (f - abs(t) / positive) * square / ((square + (1.0 - k)) * f + 1.0 / f),
                   splat(infinite()));
    b.near = select(above, k - b.off, 1.0 - k + b.off);
    return b;
}

struct Seen {
    Scaled3 u;
    Mask flat; // where no root is sought
    Branch branch;
    Value low, high;  // what the root lies between
    Value r_, s_, t_; // a point with a root, where this one is flat
};

inline Seen seen(Value r, Value s, Value t) {
    const Value one = splat(1), zero{}, infinity = splat(infinite());
    Seen p;
    p.u = Scaled3(r, s, t);
    p.branch = branch(p.u.x, p.u.y, p.u.z);
    p.flat = p.branch.inside | p.branch.polar | p.branch.face | ~p.u.valid;
    p.r_ = select(p.flat, one, p.u.x);
    p.s_ = select(p.flat, one, p.u.y);
    p.t_ = select(p.flat, zero, p.u.z);
    p.low = select(p.r_ > zero, 1.0 - p.s_ / p.r_, -infinity);
    p.high = select(p.s_ > zero, p.r_ / p.s_, infinity);
    return p;
}

// Where a moderate root of y e^rho + t- = mu + t+ is looked for, from a guess.
inline Bracket moderate_bracket(const Seen &p, Value guess) {
    const Value first = max(p.low, splat(-MODERATE)), last = min(p.high, splat(MODERATE));
    const Value near = p.branch.near, off = p.branch.off;
    Value x = select((guess > first) & (guess < last), guess, min(max(splat(0.5), first + 0.3), last - 0.3));
    x = select((x > first) & (x < last), x, 0.5 * (first + last));
    // `near` is about as far from the root as off^2.
    x = select((near >= first) & (near <= last) & (off * off < abs(x - near)), near, x);
    return Bracket(x, first, last, p.flat | ~(first < last));
}

// The logarithm v of the left side over the right, almost linear in rho, and Halley's step,
// (v/v') / (1 - v v''/(2 v'^2)), where v' = l'/l - r'/r.
inline void moderate_balance(const Seen &p, Value rho, Value &value, Value &move) {
    const Value zero{}, tiny = splat(1e-100);
    Value e = exp(rho), q = fused(rho, rho - 1.0, splat(1)), mu_over = 1.0 / (e * q), over = e * mu_over;
    Value y_over = e * over, common = (2.0 * rho - 1.0) * over; // q'/q
    Value y = fused(rho - 1.0, p.r_, p.s_), mu = fused(-rho, p.s_, p.r_);
    Value on_left = y * y_over, on_right = mu * mu_over;
    Value left = max(on_left + max(-p.t_, zero), tiny), right = max(on_right + max(p.t_, zero), tiny);
    // e^rho/q and 1/(e^rho q) grow by 1 - q'/q and -(1 + q'/q).
    Value grows = 1.0 - common, falls = 1.0 + common, turns = fused(common, common, -2.0 * over); // -(q'/q)'
    Value of_r = p.r_ * y_over, of_s = p.s_ * mu_over;
    Value left_slope = fused(on_left, grows, of_r), right_slope = -fused(on_right, falls, of_s);
    Value left_bend = fused(on_left, fused(grows, grows, turns), 2.0 * of_r * grows);
    Value right_bend = fused(on_right, fused(falls, falls, turns), 2.0 * of_s * falls);
    // 2 artanh, the first terms: as good as the logarithm at the root, and a shorter step far from it.
    Value f = (left - right) / (left + right), ff = f * f;
    Value series = splat(2.0 / 9);
    for (int odd = 7; odd >= 1; odd -= 2)
        series = fused(ff, series, splat(2.0 / odd));
    value = f * series;
    // v' and v'' times (l r) and (l r)^2.
    Value slope = fused(left_slope, right, -(right_slope * left)), square = slope * slope;
    Value of_left = fused(left_bend, left, -(left_slope * left_slope)) * (right * right);
    Value of_right = fused(right_bend, right, -(right_slope * right_slope)) * (left * left);
    Value bend = 0.5 * value * (of_left - of_right), most = 0.5 * square;
    move = value * left * right * slope / (square - min(max(bend, -most), most));
}

// The root for any rho, with logarithms of all terms, so that nothing overflows.
CVXFOLD_LONG Value any_root(const Seen &p, Mask done) {
    const Value r = p.r_, s = p.s_, low = p.low, high = p.high;
    Value one = splat(1), nan = splat(not_a_number()), zero{};
    Value log_above = log_or_minus_infinity(p.t_), log_below = log_or_minus_infinity(-p.t_);
    auto balance = [&](int, Value rho, Value &value, Value &move) {
        Value y = (s - r) + rho * r, mu = r - rho * s, scale = one + rho * (rho - 1.0);
        Value common = (2.0 * rho - 1.0) / scale, log_scale = log(scale);
        Value log_a = log_or_minus_infinity(y) - log_scale + rho,
              log_mu = log_or_minus_infinity(mu) - log_scale - rho;
        Value left = log_of_sum(log_a, log_below), right = log_of_sum(log_mu, log_above);
        Value slope =
            exp(log_a - left) * (1.0 - common + r / y) + exp(log_mu - right) * (1.0 + common + s / mu);
        value = left - right;
        move = value / slope;
    };
    Value end = select(low > splat(FAR), low, select(high < splat(-FAR), high, nan));
    end =
        select(end > splat(FARTHEST), splat(FARTHEST), select(end < splat(-FARTHEST), splat(-FARTHEST), end));
    Mask at_end = end == end;
    Value start = min(max(splat(0.5), low + 0.3), high - 0.3);
    start =
        select((start > low) & (start < high), start, select(finite(low + high), 0.5 * (low + high), zero));
    Bracket bracket(select(at_end, splat(0.5), start), low, high, done | at_end);
    find_roots(&bracket, 1, NEARLY_BY_SQUARE, balance);
    return select(at_end, end, bracket.x);
}

// rho, from what was found in the moderate bracket; zero where the point is flat.
inline Value root_of(const Seen &p, const Bracket &moderate) {
    Value rho = moderate.x;
    const Mask at_an_end = (abs(rho) > MODERATE - 1e-3) & (rho != p.low) & (rho != p.high);
    const Mask missed = ~p.flat & (~(moderate.low < moderate.high) | at_an_end);
    if (any(missed))
        rho = select(missed, any_root(p, ~missed), rho);
    return select(p.flat, Value{}, rho);
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

// The projection of a point with this root, and the frame too where `frame` is not null.
CVXFOLD_LONG void look(const Seen &at, Value rho, Pack projection[3], Frame3 *frame, bool with_margin) {
    const Value one = splat(1), zero{}, r = at.u.x, s = at.u.y, t = at.u.z, size = at.u.size;
    const Branch &b = at.branch;
    const Mask flat = at.flat, valid = at.u.valid;
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
    for (int i = 0; i < 3; i++)
        projection[i] = select(valid, size * select(flat, diagonal[i] * u[i], p[i]), u[i] * size);
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
