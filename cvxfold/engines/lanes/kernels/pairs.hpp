// The first two rows of each second-order cone by their sum and difference, as second_order.hpp tells why:
// the residuals that they enter, and the terms that these are made of.
#pragma once

#include "cones.hpp"
#include "product.hpp"
#include "workspace.hpp"

namespace cvxfold {

// The second-order cones that have two rows: visit(first row, rows, pair at w.u).
template <typename Visit> inline void each_pair(const Shape &S, const Workspace &w, Visit visit) {
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        if (S.sizes[c] > 1)
            visit(at, S.sizes[c], second_order::Pair(S.sizes[c], w.u + at, w.R[at]));
}

// The sum of term(a_0 - sign a_1, x) over the entries of a pair of rows in A, with those of x beside them.
template <typename Term>
inline Value sum_over_pair(const Shape &S, const Workspace &w, int at, Value sign, Term term) {
    const int first = S.A_start[at], second = S.A_start[at + 1];
    return sum_of(0, second - first, [&](int e) {
        return term(w.A[first + e] - sign * w.A[second + e], w.x[S.A_column[first + e]]);
    });
}

// to[i] = f(to[i], a_0 + sign a_1, a_0 - sign a_1) over the entries of a pair of rows in A, i their columns.
template <typename F>
inline void change_by_pair(const Shape &S, const Workspace &w, int at, Value sign, Pack *to, F f) {
    const int behind = S.A_start[at + 1] - S.A_start[at];
    change_at(to, S.A_column, S.A_start[at], S.A_start[at + 1], [&](int e, Value sum) {
        const Value other = sign * w.A[e + behind];
        return f(sum, w.A[e] + other, w.A[e] - other);
    });
}

// w.dual += A'y, by pairs: y_0 a_0 + y_1 a_1 = (y_0 + y_1)(a_0 + a_1)/2 + (y_0 - y_1)(a_0 - a_1)/2.
inline void add_A_transposed_by_pairs(const Shape &S, Workspace &w) {
    if (!S.second_order) {
        add_A_transposed(S, w.A, w.y, w.dual);
        return;
    }
    const auto add = [&](int row) {
        const Value factor = w.y[row];
        change_at(w.dual, S.A_column, S.A_start[row], S.A_start[row + 1],
                  [&](int e, Value sum) { return fused(w.A[e], factor, sum); });
    };
    for (int row = 0; row < S.separable(); row++)
        add(row);
    int at = S.separable();
    each_pair(S, w, [&](int first, int, const second_order::Pair &pair) {
        for (; at < first; at++)
            add(at);
        const Value small = 0.5 * pair.y, large = 0.5 * (w.y[at] - pair.sign * w.y[at + 1]);
        change_by_pair(S, w, at, pair.sign, w.dual, [&](Value sum, Value with, Value against) {
            return sum + fused(with, small, against * large);
        });
        at += 2;
    });
    for (; at < S.m; at++)
        add(at);
}

// The residuals w.primal of pairs, of which the difference may be small, by that.
inline void mend_pairs(const Shape &S, Workspace &w) {
    each_pair(S, w, [&](int at, int, const second_order::Pair &pair) {
        const Value Ax = sum_over_pair(S, w, at, pair.sign, [](Value a, Value x) { return a * x; });
        const Value small = Ax + (pair.s - (w.b[at] - pair.sign * w.b[at + 1]));
        one_by_one([&] {
            const Value large = w.primal[at] + pair.sign * w.primal[at + 1];
            w.primal[at] = 0.5 * (large + small);
            w.primal[at + 1] = pair.sign * (0.5 * (large - small));
        });
    });
}

// What is added up in the residuals of a pair's small sum or difference.
inline Value terms_of_pair(const Shape &S, const Workspace &w, int at, const second_order::Pair &pair) {
    const Value Ax = sum_over_pair(S, w, at, pair.sign, [](Value a, Value x) { return abs(a * x); });
    return Ax + (abs(pair.s) + abs(w.b[at] - pair.sign * w.b[at + 1]));
}

// The sum of |(Q'A)_j||p| over the entries of a row of a curved cone, in its frame.
inline Value terms_in_frame(const Shape &S, const Workspace &w, const Pack *p, int row) {
    return sum_of(S.A_start[row], S.A_start[row + 1],
                  [&](int e) { return abs(w.rotated_A[e] * p[S.A_column[e]]); });
}

} // namespace cvxfold
