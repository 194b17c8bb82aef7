// What rounding may have left of the residuals at a point, or hidden.
#pragma once

#include "criterion.hpp"
#include "inspection.hpp"

namespace cvxfold {

const double ROUNDING = 1.1e-16; // 2^-53: of one number, at most

// Adds to columns (n) what is added up in A'y where y = R (s - u) is the difference of two numbers: on curved
// cones, but for pairs, between K and its polar.
inline void add_terms_of_differences(const Shape &S, const Workspace &w, Pack *columns) {
    const auto add = [&](int from, int to) {
        for (int j = from; j < to; j++) {
            const Value terms =
                select((w.s[j] == 0.0) | (w.y[j] == 0.0), Value{}, w.R[j] * (abs(w.s[j]) + abs(w.u[j])));
            change_at(columns, S.A_column, S.A_start[j], S.A_start[j + 1],
                      [&](int e, Value sum) { return fused(abs(w.A[e]), terms, sum); });
        }
    };
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        add(at + least(2, S.sizes[c]), at + S.sizes[c]);
    add(at, S.m);
}

// Adds to the residuals w.dual and w.primal what rounding may have left of their terms, or hidden.
// terms: (m), becomes what is added up in each row's cone, null where nobody asks.
inline void add_rounding(const Shape &S, Workspace &w, Pack *terms) {
    Pack *rows = w.du, *columns = w.dx;
    add_up_terms(S, w, Sizes(S, w), rows, columns);
    add_terms_of_differences(S, w, columns);
    if (terms)
        fill(terms, S.m, [&](int j) { return max(rows[j], abs(w.u[j])); });
    for (int cone = 0, at = S.separable(); terms && at < S.m; at += S.rows_of(cone++))
        spread_largest(terms + at, S.rows_of(cone));
    fill(w.dual, S.n, [&](int i) { return w.dual[i] + (ROUNDING * share(i) * columns[i]); });
    fill(rows, S.m, [&](int j) { return share(j) * rows[j]; });
    each_pair(S, w, [&](int at, int, const second_order::Pair &pair) {
        const Value large = rows[at], small = share(at + 1) * terms_of_pair(S, w, at, pair);
        one_by_one([&] {
            rows[at] = 0.5 * (large + small);
            rows[at + 1] = pair.sign * (0.5 * (large - small));
        });
    });
    fill(w.primal, S.m, [&](int j) { return w.primal[j] + (ROUNDING * rows[j]); });
}

} // namespace cvxfold
