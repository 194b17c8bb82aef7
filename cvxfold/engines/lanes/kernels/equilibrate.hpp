// Ruiz's equilibration, with Euclidean norms ("A scaling algorithm to equilibrate both rows and columns norms
// in matrices", 2001), of [P A'; A 0]: diagonal D and E that make rows and columns alike in size.
#pragma once

#include "product.hpp"
#include "tilt.hpp"

namespace cvxfold {

const int SWEEPS = 8;
const double OLD = 16;            // passes that D and E serve before they are made anew
const double LARGEST_SCALE = 1e5; // of D and E, and of their inverses

// Where scale goes for the squared norm of what it has scaled, within its limits.
inline Value toward_one(Value squared_norm, Value scale, Value most) {
    const Value step = 1.0 / sqrt(sqrt(select(squared_norm > 0.0, squared_norm, splat(1))));
    return min(max(scale * step, 1.0 / most), most);
}

// E is constant on the rows of a curved cone, so that it maps the cone onto itself.
inline void mean_over_cones(const Shape &S, Pack *squares) {
    int at = S.separable();
    for (int c = 0; at < S.m; c++) {
        const int size = S.rows_of(c);
        const Value mean = sum_of(at, at + size, [&](int i) { return squares[i]; }) / splat(size);
        fill(squares + at, size, [&](int) { return mean; });
        at += size;
    }
}

// P <- D P D and A <- E A D, with D = w.columns and E = w.rows.
CVXFOLD_LONG void scale_matrices(const Shape &S, Workspace &w) {
    const Pack *D = w.columns;
    fill(w.P, S.nnz_P, [&](int e) { return w.P[e] * (D[S.P_row[e]] * D[S.P_column[e]]); });
    for (int j = 0; j < S.m; j++) {
        const Value scale = w.rows[j];
        scale_row(w.A, D, S.A_column, S.A_start[j], S.A_start[j + 1],
                  [&](auto entry, auto of_column) { return entry * (of_column * scale); });
    }
}

// Squared norms of the rows of E A D and of the columns of [D P D; E A D], with D = w.columns, E = w.rows.
CVXFOLD_LONG void add_up_squares(const Shape &S, const Workspace &w, Pack *by_column, Pack *by_row) {
    const Pack *D = w.columns;
    clear(by_column, S.n);
    for (int j = 0; j < S.m; j++) {
        const int first = S.A_start[j], end = S.A_start[j + 1];
        const Value scale = w.rows[j];
        const Value squares =
            sum_over_row(w.A, D, S.A_column, first, end, Value{}, [](auto entry, auto of_column, auto sum) {
                const auto scaled = entry * of_column;
                return fused(scaled, scaled, sum);
            });
        set(by_row[j], squares * (scale * scale));
        change_row(by_column, S.A_column, first, end, [&](int e, Value sum) {
            const Value scaled = w.A[e] * scale;
            return fused(scaled, scaled, sum);
        });
    }
    add_over_P(S, by_column, [&](int e, int j, Value sum) {
        const Value scaled = w.P[e] * D[j];
        return fused(scaled, scaled, sum);
    });
    fill(by_column, S.n, [&](int i) { return by_column[i] * (D[i] * D[i]); });
}

// P <- D P D, A <- E A D, and D and E into w.columns and w.rows. Lanes of `known` are left with the D and E
// that are there, those of similar data. (More sweeps from there, time and again, would lead to extremes.)
//
// Of lanes that are tilted, rows whose scales are in w.reach have these, and others some between the limits
// in w.found.
CVXFOLD_LONG void equilibrate(const Shape &S, Workspace &w, Mask known, double largest = LARGEST_SCALE) {
    Pack *by_column = w.scratch, *by_row = w.scratch + S.n;
    const Mask tilts = tilted(S, w), open = ~known;
    const auto stays = [&](int j) { return tilts & (w.reach[j] > 0.0); };
    const Value most = select(tilts, splat(LARGEST_LENGTH), splat(largest));
    fill(w.columns, S.n, [&](int i) { return select(known, w.columns[i], splat(1)); });
    fill(w.rows, S.m,
         [&](int j) { return select(known, w.rows[j], select(stays(j), w.reach[j], splat(1))); });
    for (int sweep = 0; sweep < SWEEPS && any(open); sweep++) {
        add_up_squares(S, w, by_column, by_row);
        mean_over_cones(S, by_row);
        fill(w.columns, S.n,
             [&](int i) { return select(open, toward_one(by_column[i], w.columns[i], most), w.columns[i]); });
        fill(w.rows, S.m, [&](int j) {
            return select(open & ~stays(j), toward_one(by_row[j], w.rows[j], most), w.rows[j]);
        });
        if (any(tilts))
            fill(w.rows, S.m, [&](int j) {
                const Value within = min(max(w.rows[j], w.found[j]), w.found[S.m + j]);
                return select(tilts & open & ~stays(j), min(max(within, 1.0 / most), most), w.rows[j]);
            });
    }
    scale_matrices(S, w);
}

} // namespace cvxfold
