// The second-order cone {(t, z) : |z| <= t}, and the frame of its derivative.
//
// Between K and its polar D has the eigenvectors (1, z/|z|)/sqrt(2) with eigenvalue 1, (1, -z/|z|)/sqrt(2)
// with 0 and (0, v) with v orthogonal to z and eigenvalue (1 + t/|z|)/2. A Householder reflection H takes e_1
// to +-z/|z|: in the coordinates Q'a = ((a_0 + c)/sqrt(2), (a_0 - c)/sqrt(2), the rest of H a_z), c the part
// along z/|z|, D is diagonal. Frame: [sign, 2/h'h, h (d - 1), 1 - |z_1|/|z|].
//
// A cone 2 a b >= |v|^2 is one of (a + b, a - b, v) up to factors, as CVXPY states square roots and
// quotients. Where b is small beside a, so is v, and a - b = z_1 is nearly all of z: what depends on b is the
// difference of two numbers that are nearly equal, and v tells it more exactly than they do. So 1 - |z_1|/|z|
// is made of the rest of z, and `Pair` and `into_frame` use that.
#pragma once

#include "product.hpp"

namespace cvxfold {

namespace second_order {

const double ROOT_HALF = 0.70710678118654752440;

inline int frame_size(int size) { return size + 2; }

// The sum of u_i^2 for `from` <= i < `to`.
inline Value squared_sum(int from, int to, const Pack *u) { return squared_norm(u + from, to - from); }

CVXFOLD_LONG void project(int size, const Pack *u, Pack *s) {
    Value one = splat(1), zero{}, t = u[0], norm = sqrt(squared_sum(1, size, u));
    Mask inside = norm <= t, polar = norm <= -t;
    inside &= ~polar; // the origin is in both; D = 0 there
    Value curved = 0.5 * (1.0 + t / select(norm > zero, norm, one));
    Value factor = select(inside, one, select(polar, zero, curved));
    set(s[0], select(inside, t, select(polar, zero, 0.5 * (t + norm))));
    fill(s + 1, size - 1, [&](int i) { return factor * u[i + 1]; });
}

// The reflection for the direction z/|z|; e_1 where z = 0. Written where `mask` is.
CVXFOLD_LONG void reflect(int size, const Pack *z, Value norm, Mask mask, Pack *frame) {
    Value one = splat(1), zero{};
    if (size == 1)
        return;
    Mask has = norm > zero;
    Value inverse = 1.0 / select(has, norm, one);
    Value first = select(has, z[0] * inverse, one);
    Value sign = select(first >= zero, one, -one), squares{};
    each(size - 2, [&](int i) {
        const Value entry = select(has, z[i + 1] * inverse, zero);
        squares = fused(entry, entry, squares);
        frame[3 + i] = select(mask, entry, frame[3 + i]);
    });
    squares = joined(squares, Sum());
    one_by_one([&] {
        frame[0] = select(mask, -sign, frame[0]);
        frame[1] = select(mask, 1.0 / (1.0 + abs(first)), frame[1]);
        frame[2] = select(mask, first + sign, frame[2]);
        frame[size + 1] = select(mask, squares / (1.0 + abs(first)), frame[size + 1]);
    });
}

// Of the projection s of u, and of y = R (s - u): s_0 - sign s_1 and y_0 + sign y_1, with the sign of u_1,
// which are the small ones of the two rows' sums and differences where u_1 is nearly all of z.
struct Pair {
    Value sign, s, y;

    Pair(int size, const Pack *u, Value R) {
        const Value zero{}, t = u[0], rest = squared_sum(2, size, u);
        const Value first = abs(u[1]), norm = sqrt(first * first + rest);
        const Value gap = rest / max(norm + first, splat(2.3e-308)); // norm - first
        const Mask inside = norm <= t, polar = norm <= -t;
        const Value turned = gap / max(norm, splat(2.3e-308));
        sign = select(u[1] >= 0.0, splat(1), splat(-1));
        s = select(polar, zero, select(inside, t - first, 0.5 * (t + norm) * turned));
        y = R * select(polar, -t - first, select(inside, zero, 0.5 * (norm - t) * turned));
    }
};

// Eigenvalues and frame of D at u where `mask` is; returns the distance to the nearest point without a
// derivative.
CVXFOLD_LONG Value look(int size, const Pack *u, Mask mask, Pack *lambda, Pack *frame) {
    Value one = splat(1), zero{}, t = u[0], norm = sqrt(squared_sum(1, size, u));
    Mask inside = norm <= t, polar = norm <= -t;
    inside &= ~polar;
    Mask boundary = ~(inside | polar);
    Value flat = select(inside, one, zero);
    set(lambda[0], select(mask, select(boundary, one, flat), lambda[0]));
    if (size > 1) {
        Value curved = select(boundary, 0.5 * (1.0 + t / select(norm > zero, norm, one)), flat);
        set(lambda[1], select(mask, flat, lambda[1]));
        fill(lambda + 2, size - 2, [&](int i) { return select(mask, curved, lambda[2 + i]); });
        reflect(size, u + 1, norm, mask, frame);
        return ROOT_HALF * min(abs(t - norm), abs(t + norm));
    }
    return abs(t);
}

// Q'a, of numbers a(i), which out(i, value) takes, perhaps to the same places. Loops: who works on it.
template <typename Loops, typename From, typename To>
inline void into_frame_by(int size, const Pack *frame, From a, To out) {
    if (size == 1) {
        Loops::one_by_one([&] { out(0, a(0)); });
        return;
    }
    const Pack *h = frame + 2;
    Value rest = Loops::sum_of_products(2, size, [&](int i) { return Value(h[i - 1]); }, a);
    const Value zeroth = a(0), second = a(1), first = -frame[0] * second,
                along = frame[1] * fused(h[0], second, rest);
    Loops::each(size - 2, [&](int i) { out(i + 2, fused(-along, h[i + 1], a(i + 2))); });
    rest = fused(-frame[size + 1], first, rest); // the part along z/|z| without that of z_1/|z_1|
    Loops::one_by_one([&] {
        out(0, ROOT_HALF * ((zeroth + first) + rest));
        out(1, ROOT_HALF * ((zeroth - first) - rest));
    });
}

// Q'a. May work in place.
inline void into_frame(int size, const Pack *frame, const Pack *a, Pack *out) {
    into_frame_by<ByGroup>(
        size, frame, [&](int i) -> Value { return a[i]; }, [&](int i, Value value) { out[i] = value; });
}

// Q a. May work in place.
inline void out_of_frame(int size, const Pack *frame, const Pack *a, Pack *out) {
    if (size == 1) {
        set(out[0], a[0]);
        return;
    }
    const Pack *h = frame + 2;
    const Value zeroth = ROOT_HALF * (a[0] + a[1]), first = frame[0] * (ROOT_HALF * (a[0] - a[1]));
    Value along = sum_of_products(
        2, size, h[0] * first, [&](int i) { return Value(h[i - 1]); }, [&](int i) { return Value(a[i]); });
    along *= frame[1];
    fill(out + 2, size - 2, [&](int i) { return fused(-along, h[i + 1], a[i + 2]); });
    one_by_one([&] {
        out[0] = zeroth;
        out[1] = fused(-along, h[0], first);
    });
}

} // namespace second_order
} // namespace cvxfold
