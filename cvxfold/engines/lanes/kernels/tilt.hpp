// Cones whose rows are far apart in size, as those of log x or 1/x at x = 1e-10, mapped onto themselves.
//
// A point of the exponential cone's boundary, y (r, 1, e^r), becomes a y (0, 1, 1) under
//
//     T = a [ 1  -r      ]
//           [     1      ]
//           [        e^-r]
//
// which maps the cone onto itself; the multiplier m (-e^r, -(1 - r) e^r, 1), under the inverse transposed,
// m e^r/a (-1, -1, 1). So one program is T A x + T s = T b where all of it is of one size, however far apart
// the numbers are, and u = T s - T^-T y/R loses no digits of what is small.
//
// A second-order cone's first two rows may state x y >= |z|^2, as s_0 + s_1 = x and s_0 - s_1 = y. A
// hyperbolic rotation by h,
//
//     s_0 + s_1 -> a (s_0 + s_1)/h     s_0 - s_1 -> a (s_0 - s_1) h     s_i -> a s_i
//
// makes x and y alike. h is a power of two, so that nothing is rounded. Where a variable is in the sum and in
// the difference, its entries would grow far apart, and the cone is left as it is.
//
// A power cone is mapped onto itself by T = diag(e^p, e^q, e^(alpha p + (1 - alpha) q)), which takes a point
// of its boundary to a (1, 1, +-1).
//
// So is a semidefinite cone by s -> G s G with a diagonal G, of powers of two, which takes large and small
// entries of a diagonal to about the same.
//
// a, e^-r and all of a power or semidefinite cone's T stand among the scales of the rows, w.rows. What they
// do not say, r and h, is in w.tilt, behind 1, or 0 where an instance is as it is given.
#pragma once

#include "elementary.hpp"
#include "pairs.hpp"

namespace cvxfold {

const double STEEPEST = 100, LARGEST_LENGTH = 1e15; // |r|, and a and h
const double SIGNIFICANT = 1e-10;                   // of the largest product of s and y, of a cone's
const double BOTH = 1e-12;  // of an entry in a pair's sum over that in its difference, or the other way
const double CURVED = 1e-3; // of a cone's largest s_j y_j, their sum on what is curved of its boundary
const double CANCELLED_SIDE = 1e-10; // of a pair's sum, what is left of it in a difference of rows

inline int exponential_rows_begin(const Shape &S) { return S.m - 3 * (S.exponential + S.power); }

// The lanes whose cones are tilted: all of an instance, or none.
inline Mask tilted(const Shape &S, const Workspace &w) { return S.may_tilt() ? w.tilt[0] > 0.0 : none(); }

inline void clear_tilt(const Shape &S, Workspace &w) { clear(w.tilt, S.tilt_packs()); }

// The program's own unit of an entry of the dual residual; 1 of a program that is tilted, whose own units may
// be so far apart that what rounding leaves of one is much in another.
inline Value unit_of_column(const Shape &S, const Workspace &w, int i) {
    return select(tilted(S, w), splat(1), 1.0 / w.columns[i]);
}

// Calls by_r(first row, r) for each exponential cone and by_h(first row, h) for each second-order cone of two
// rows at least.
template <typename ByR, typename ByH>
inline void each_tilt(const Shape &S, const Workspace &w, ByR by_r, ByH by_h) {
    if (!any(tilted(S, w)))
        return;
    const Mask which = tilted(S, w);
    const int exponential = exponential_rows_begin(S);
    const Pack *r = w.tilt + 1, *h = r + S.exponential;
    each(S.exponential, [&](int c) { by_r(exponential + 3 * c, Value(r[c])); });
    for (int c = 0, at = S.separable(); c < S.second_order; at += S.sizes[c++])
        if (S.sizes[c] > 1)
            by_h(at, select(which, h[c], splat(1)));
}

// (v_0 + v_1)/h and (v_0 - v_1) h, as rows.
inline void rotate(Pack &v0, Pack &v1, Value h) {
    const Value with = 0.5 * ((v0 + v1) / h), against = 0.5 * ((v0 - v1) * h);
    const Mask as_it_is = h == 1.0;
    v0 = select(as_it_is, v0, with + against), v1 = select(as_it_is, v1, with - against);
}
inline void rotate_rows(Pack *v, Value h) {
    one_by_one([&] { rotate(v[0], v[1], h); });
}

// What scales of rows leave of T v, of a primal vector (m); of its inverse; and of T'v, of a dual one.
inline void tilt(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(
        S, w, [&](int at, Value r) { v[at] -= r * v[at + 1]; },
        [&](int at, Value h) { rotate_rows(v + at, h); });
}
inline void tilt_back(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(
        S, w, [&](int at, Value r) { v[at] += r * v[at + 1]; },
        [&](int at, Value h) { rotate_rows(v + at, 1.0 / h); });
}
inline void tilt_dual(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(
        S, w, [&](int at, Value r) { v[at + 1] += r * v[at]; },
        [&](int at, Value h) { rotate_rows(v + at, 1.0 / h); });
}
inline void tilt_dual_back(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(
        S, w, [&](int at, Value r) { v[at + 1] -= r * v[at]; },
        [&](int at, Value h) { rotate_rows(v + at, h); });
}

// T A, of the rows of A as they are given, but for those scales.
inline void tilt_A(const Shape &S, const Workspace &w, Pack *A) {
    each_tilt(
        S, w,
        [&](int at, Value r) {
            const int count = S.A_start[at + 1] - S.A_start[at];
            Pack *first = A + S.A_start[at];
            for (int e = 0; e < count; e++)
                first[e] -= r * first[count + e];
        },
        [&](int at, Value h) {
            const int count = S.A_start[at + 1] - S.A_start[at];
            Pack *first = A + S.A_start[at];
            each(count, [&](int e) { rotate(first[e], first[count + e], h); });
        });
}

// The lanes where no column of A enters both the sum and the difference of the pair of rows at `at`.
inline Mask is_product(const Shape &S, const Workspace &w, int at) {
    const int first = S.A_start[at], count = S.A_start[at + 1] - first;
    const Value both = largest_of(0, count, [&](int e) {
        const Value with = abs(w.A[first + e] + w.A[first + count + e]);
        const Value against = abs(w.A[first + e] - w.A[first + count + e]);
        return select(min(with, against) > BOTH * max(with, against), splat(1), Value{});
    });
    return both == 0.0;
}

// v_0 + v_1 and v_0 - v_1 of a point of a second-order cone; at the boundary, where rounding has taken the
// smaller one, by the rest of the cone's rows.
struct Sides {
    Value with, against;

    Sides(int size, const Pack *v) {
        const Value sum = v[0] + abs(v[1]), rest = squared_norm(v + 2, size - 2);
        const Value least = splat(1e-300), left = v[0] - abs(v[1]), by_rest = rest / max(sum, least);
        const Value small = max(select(left > CANCELLED_SIDE * sum, left, by_rest), least);
        with = select(v[1] >= 0.0, sum, small), against = select(v[1] >= 0.0, small, sum);
    }
};

// Whether s and y of a cone in R^3 are on what is curved of the boundaries, where the terms of s'y = 0
// cancel. Elsewhere, at the apex, on an edge or inside, no ratio of their entries says anything.
inline Mask is_curved(const Pack *s, const Pack *y) {
    Value sum{}, largest{};
    for (int i = 0; i < 3; i++)
        sum += s[i] * y[i], largest = max(largest, abs(s[i] * y[i]));
    return abs(sum) <= CURVED * largest;
}

// The tilt at points s and y (m) in own units, at w.A as it is given, where `mask` is, into w.tilt, and the
// scales of rows that it gives into w.reach, 0 for others: r = log(z/y) and h^4 = (s_with
// y_against)/(s_against y_with), as Nesterov and Todd's scaling has them; a so that T s and T^-T y are of one
// size, where neither is nothing. s and y become T s and T^-T y. Where scales of other rows are to be, so
// that s and y are no larger there than of these cones, becomes w.found (2 m): the least ones, and the most.
inline void set_tilt(const Shape &S, Workspace &w, Pack *s, Pack *y, Mask mask) {
    const Value least = splat(1e-300), most = splat(1e300);
    const auto balance = [&](Value squared) {
        return min(max(sqrt(squared), splat(1 / LARGEST_LENGTH)), splat(LARGEST_LENGTH));
    };
    clear(w.reach, S.m);
    const int exponential = exponential_rows_begin(S);
    Pack *r_of = w.tilt + 1, *h_of = r_of + S.exponential;
    const auto each_symmetric = [&](auto visit) {
        int at = S.separable();
        for (int c = 0; c < S.second_order + S.semidefinite; at += S.rows_of(c++))
            visit(at, S.rows_of(c), c);
    };
    const auto length = [&](const Pack *v, int at, int size) {
        return sqrt(sum_of(at, at + size, [&](int j) { return v[j] * v[j]; }));
    };
    set(w.tilt[0], select(mask, splat(1), Value{}));
    each(S.exponential, [&](int c) {
        const int row = exponential + 3 * c;
        const Value length = min(max(s[row + 1], least), most), dual = min(max(y[row + 2], least), most);
        Value r = log(min(max(s[row + 2], least), most)) - log(length);
        r = min(max(r, splat(-STEEPEST)), splat(STEEPEST));
        const Value a = balance(exp(log(dual) - log(length) + r)), scales[] = {a, a, a * exp(-r)};
        const Mask curved = is_curved(s + row, y + row);
        r_of[c] = select(mask & curved, r, Value{});
        for (int i = 0; i < 3; i++)
            w.reach[row + i] = select(curved, scales[i], Value{});
    });
    each(S.power, [&](int c) {
        const int row = exponential + 3 * (S.exponential + c);
        const double alpha = S.alpha[c];
        const Value first = min(max(s[row], least), most), second = min(max(s[row + 1], least), most);
        const Value product = max(s[row] * y[row] + s[row + 1] * y[row + 1], Value{});
        const Value of_x = balance(product / (first * first)), of_y = balance(product / (second * second));
        const Value of_z = exp(alpha * log(of_x) + (1 - alpha) * log(of_y)), scales[] = {of_x, of_y, of_z};
        const Mask curved = is_curved(s + row, y + row);
        for (int i = 0; i < 3; i++)
            w.reach[row + i] = select(curved, scales[i], Value{});
    });
    each_symmetric([&](int at, int size, int c) {
        if (c >= S.second_order)
            return;
        Value h = splat(1);
        if (size > 2) {
            const Sides of_s(size, s + at), of_y(size, y + at);
            const Value fourth = (of_s.with / of_s.against) * (of_y.against / of_y.with);
            h = balance(sqrt(min(max(fourth, least), most)));
            h = select(mask & is_product(S, w, at), leading_power(h), splat(1));
        }
        set(h_of[c], h);
    });
    tilt(S, w, s);
    tilt_dual(S, w, y);
    Value largest = fold(exponential, S.m, Value{}, [&](int j) { return abs(s[j] * y[j]); }, Larger());
    const auto product = [&](int at, int size, int c) { // what s and y have in common
        Value of_cone = length(s, at, size) * length(y, at, size);
        if (c >= S.second_order) {
            of_cone = Value{};
            for (int left = S.orders[c - S.second_order], row = at; left > 0; row += left--)
                of_cone = max(of_cone, s[row] * y[row]);
        }
        return of_cone;
    };
    each_symmetric([&](int at, int size, int c) { largest = max(largest, product(at, size, c)); });
    const Value size = sqrt(largest);
    each_symmetric([&](int at, int count, int c) {
        const Value of_s = length(s, at, count), of_y = length(y, at, count);
        const Value a = balance(of_y / max(of_s, least));
        const Mask counts = product(at, count, c) > SIGNIFICANT * largest;
        if (c < S.second_order) {
            fill(w.reach + at, count, [&](int) { return select(counts, a, Value{}); });
            return;
        }
        const int order = S.orders[c - S.second_order];
        Pack *g = w.scratch;
        one_by_one([&] { // its square, as the cone has it, but for rows that would be large
            for (int i = 0, row = at; i < order; row += order - i++) {
                const Value low = max(y[row], Value{}) / max(size, least), high = size / max(s[row], least);
                g[i] = leading_power(balance(min(max(a, low), max(high, low))));
            }
            for (int j = 0, row = at; j < order; j++)
                for (int i = j; i < order; i++, row++)
                    w.reach[row] = select(counts, g[i] * g[j], Value{});
        });
    });
    Pack *low = w.found, *high = low + S.m;
    const auto lowest = [&](Value of_y) {
        return select(size > 0.0, min(of_y / max(size, least), most), Value{});
    };
    const auto highest = [&](Value of_s, Value from) {
        return max(select(size > 0.0, size / max(of_s, least), most), from);
    };
    each(S.separable(), [&](int j) {
        low[j] = lowest(abs(y[j]));
        high[j] = highest(abs(s[j]), low[j]);
    });
    for (int cone = 0, at = S.separable(); at < S.m; at += S.rows_of(cone++)) {
        const int count = S.rows_of(cone);
        const Value from = lowest(length(y, at, count)), to = highest(length(s, at, count), from);
        fill(low + at, count, [&](int) { return from; });
        fill(high + at, count, [&](int) { return to; });
    }
}

} // namespace cvxfold
