// Exponential cones whose rows are far apart in size, as those of log x at x = 1e-10, mapped onto themselves.
//
// A point of the boundary, y (r, 1, e^r), becomes a y (0, 1, 1) under
//
//     T = a [ 1  -r      ]
//           [     1      ]
//           [        e^-r]
//
// which maps the cone onto itself; the multiplier m (-e^r, -(1 - r) e^r, 1), under the inverse transposed,
// m e^r/a (-1, -1, 1). So one program is T A x + T s = T b where all of it is of one size, however far apart
// the numbers are, and u = T s - T^-T y/R loses no digits of what is small.
//
// a and e^-r stand among the scales of the rows, w.rows. What they do not say, r, is in w.tilt, beside 1, or
// 0 where a cone is as it is given.
#pragma once

#include "product.hpp"
#include "workspace.hpp"

namespace cvxfold {

const double STEEPEST = 100, LARGEST_LENGTH = 1e15; // |r|, and a
const double SIGNIFICANT = 1e-6;                    // of the largest |s||y| of a cone

inline int exponential_rows_begin(const Shape &S) { return S.m - 3 * (S.exponential + S.power); }

// The lanes whose cones are tilted: all of an instance, or none.
inline Mask tilted(const Shape &S, const Workspace &w) { return S.exponential ? w.tilt[1] > 0.0 : none(); }

inline void clear_tilt(const Shape &S, Workspace &w) { clear(w.tilt, 2 * S.exponential); }

// The program's own unit of an entry of the dual residual; 1 of a program that is tilted, whose own units may
// be so far apart that what rounding leaves of one is much in another.
inline Value unit_of_column(const Shape &S, const Workspace &w, int i) {
    return select(tilted(S, w), splat(1), 1.0 / w.columns[i]);
}

// Calls visit(first row, r) for each exponential cone.
template <typename Visit> inline void each_tilt(const Shape &S, const Workspace &w, Visit visit) {
    const int at = exponential_rows_begin(S);
    if (S.exponential && any(tilted(S, w)))
        each(S.exponential, [&](int c) { visit(at + 3 * c, Value(w.tilt[2 * c])); });
}

// What scales of rows leave of T v, of a primal vector (m); of its inverse; and of T'v, of a dual one.
inline void tilt(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(S, w, [&](int at, Value r) { v[at] -= r * v[at + 1]; });
}
inline void tilt_back(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(S, w, [&](int at, Value r) { v[at] += r * v[at + 1]; });
}
inline void tilt_dual(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(S, w, [&](int at, Value r) { v[at + 1] += r * v[at]; });
}
inline void tilt_dual_back(const Shape &S, const Workspace &w, Pack *v) {
    each_tilt(S, w, [&](int at, Value r) { v[at + 1] -= r * v[at]; });
}

// The same of the rows of A as they are given.
inline void tilt_A(const Shape &S, const Workspace &w, Pack *A) {
    each_tilt(S, w, [&](int at, Value r) {
        const int count = S.A_start[at + 1] - S.A_start[at];
        Pack *first = A + S.A_start[at];
        for (int e = 0; e < count; e++)
            first[e] -= r * first[count + e];
    });
}

// The tilt at points s and y (m) in own units, where `mask` is, into w.tilt, and the scales of rows that it
// gives into w.reach, 0 for others: r = log(z/y), and a so that T s and T^-T y are of one size; likewise of
// second-order and semidefinite cones where neither s nor y is nothing.
inline void set_tilt(const Shape &S, Workspace &w, const Pack *s, const Pack *y, Mask mask) {
    const Value least = splat(1e-300), most = splat(1e300);
    const auto balance = [&](Value squared) {
        return min(max(sqrt(squared), splat(1 / LARGEST_LENGTH)), splat(LARGEST_LENGTH));
    };
    clear(w.reach, S.m);
    Value largest{};
    const auto each_symmetric = [&](auto visit) {
        int at = S.separable();
        for (int c = 0; c < S.second_order + S.semidefinite; at += S.rows_of(c++))
            visit(at, S.rows_of(c));
    };
    const auto length = [&](const Pack *v, int at, int size) {
        return sqrt(sum_of(at, at + size, [&](int j) { return v[j] * v[j]; }));
    };
    const int exponential = exponential_rows_begin(S);
    largest = fold(
        exponential, exponential + 3 * S.exponential, largest, [&](int j) { return abs(s[j] * y[j]); },
        Larger());
    each_symmetric(
        [&](int at, int size) { largest = max(largest, length(s, at, size) * length(y, at, size)); });
    each_symmetric([&](int at, int size) {
        const Value of_s = length(s, at, size), of_y = length(y, at, size);
        const Value a =
            select(of_s * of_y > SIGNIFICANT * largest, balance(of_y / max(of_s, least)), Value{});
        fill(w.reach + at, size, [&](int) { return a; });
    });
    each(S.exponential, [&](int c) {
        const int row = exponential + 3 * c;
        const Value length = min(max(s[row + 1], least), most), dual = min(max(y[row + 2], least), most);
        Value r = log(min(max(s[row + 2], least), most)) - log(length);
        r = min(max(r, splat(-STEEPEST)), splat(STEEPEST));
        const Value a = balance(exp(log(dual) - log(length) + r)), scales[] = {a, a, a * exp(-r)};
        w.tilt[2 * c] = select(mask, r, Value{});
        w.tilt[2 * c + 1] = select(mask, splat(1), Value{});
        for (int i = 0; i < 3; i++)
            w.reach[row + i] = scales[i];
    });
}

} // namespace cvxfold
