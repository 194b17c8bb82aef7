// Directions that prove that there is no solution, in SCS's definitions:
//
//     infeasible   dy in K*,  b'dy = -1,  |A'dy| <= eps
//     unbounded    q'dx = -1,  |P dx| <= eps,  |A dx + ds| <= eps  with ds in K
//
// where q and b are divided by their largest entry, so that the size of the data does not decide. The steps
// of the splitting tend to such directions where there are any (Banjac, Goulart, Stellato and Boyd,
// "Infeasibility detection in the alternating direction method of multipliers for convex optimization",
// 2019).
//
// Nor may the size of A decide: 1e-12 x >= 1 has dy = 1 with A'dy = 1e-12, which proves no more than that x
// >= 1e12. So what is left counts beside what the entries of A on its row or column make of b or q as well,
// the natural sizes of x, X_i = max_j |b_j|/|A_ji|, and of y, Y_j = max_i |q_i|/|A_ji|, over the rows j and
// columns i that carry b'dy and q'dx, beyond rounding:
//
//     sum_i |A'dy|_i X_i << |b'dy|        sum_j |A dx + ds|_j Y_j << |q'dx|
//
// each up to a thousandth.
#pragma once

#include "residual.hpp"

namespace cvxfold {

const double CERTIFICATE_ROUNDING = 1e-14, OUT_OF_REACH = 1e12;
const double CANCELLED = 1e-13; // of the terms of an entry of A'dy or A dx
const double MUCH = 1e-3;       // of the largest term of b'dy or q'dx
const double NO_ENTRY = 1e-15;  // of the largest entry of A
const double BY_SCALE = 1e-3;   // of b'dy or q'dx, of what is left beside the natural sizes

// a'b, zero where it is what rounding leaves of terms that cancel.
inline Value product_beyond_rounding(const Pack *a, const Pack *b, int size) {
    Value sum{}, terms{};
    for (int i = 0; i < size; i++) {
        Value term = a[i] * b[i];
        sum += term;
        terms += abs(term);
    }
    return select(abs(sum) > CERTIFICATE_ROUNDING * terms, sum, Value{});
}

inline Value certificate_ratio(Value violation, Value gain) {
    return select(gain > 0.0, violation / max(gain, splat(2.3e-308)), splat(infinite()));
}

// The residual of dy (m), which is projected onto K*, as a proof that nothing is feasible. Uses w.turned,
// w.scratch.
inline Value infeasibility(const Shape &S, Workspace &w, Pack *dy) {
    fill(w.turned, S.m, [&](int j) { return -dy[j]; });
    project(S, w.roots, w.turned, w.scratch, all(), false);
    fill(dy, S.m, [&](int j) { return dy[j] + w.scratch[j]; });
    Pack *Aty = w.scratch;
    clear(Aty, S.n);
    add_A_transposed(S, w.A, dy, Aty);
    Value violation{};
    for (int i = 0; i < S.n; i++)
        violation = largest(violation, abs(Aty[i] / w.columns[i]));
    return certificate_ratio(violation, -product_beyond_rounding(w.b, dy, S.m));
}

// The residual of dx (n) as a direction along which a feasible objective falls forever. Uses w.turned,
// w.scratch.
inline Value unboundedness(const Shape &S, Workspace &w, const Pack *dx) {
    Pack *Pdx = w.scratch, *inside = w.scratch + S.N;
    multiply_P(S, w.P, dx, Pdx);
    multiply_A(S, w.A, dx, w.turned);
    fill(w.turned, S.m, [&](int j) { return -w.turned[j]; });
    project(S, w.roots, w.turned, inside, all(), false);
    Value violation{}, curvature = dot(dx, Pdx, S.n), descent = -product_beyond_rounding(w.q, dx, S.n);
    for (int i = 0; i < S.n; i++)
        violation = largest(violation, abs(Pdx[i] / w.columns[i]));
    for (int j = 0; j < S.m; j++)
        violation = largest(violation, abs((inside[j] - w.turned[j]) / w.rows[j]));
    // The objective's minimum along dx, at q'dx/dx'Pdx, must be out of reach and not only far: beside the
    // data, and beside |q|/|P|, since a P that is small as a whole makes all solutions large.
    const Value P = infinity_norm(w.P, S.nnz_P);
    const Value reach = max(splat(1), infinity_norm(w.q, S.n) / select(P > 0.0, P, splat(infinite())));
    Mask far = sqrt(squared_norm(dx, S.n)) * descent >= OUT_OF_REACH * reach * curvature;
    return select(far, certificate_ratio(violation, descent), splat(infinite()));
}

// |size/entry|; zero where the entry is no more than rounding, `least`.
inline Value over_entry(Value size, Value entry, Value least) {
    return select(abs(entry) <= least, Value{}, abs(size) / max(abs(entry), splat(2.3e-308)));
}

// |a| where its term a d is at least `much`, else zero.
inline Value carrying(Value a, Value d, Value much) { return select(abs(a * d) >= much, abs(a), Value{}); }

// What dy (m) in K* leaves of A'dy = 0 times the natural sizes of x, where b'dy = -1. Uses w.scratch.
inline Value excludes_all(const Shape &S, Workspace &w, const Pack *dy) {
    Pack *left = w.scratch, *terms = left + S.n, *natural = terms + S.n;
    const Value least = NO_ENTRY * infinity_norm(w.A, S.nnz_A);
    const Value much = MUCH * largest_of(0, S.m, [&](int j) { return abs(w.b[j] * dy[j]); });
    clear(left, S.n);
    clear(terms, S.n);
    clear(natural, S.n);
    add_A_transposed(S, w.A, dy, left);
    for (int j = 0; j < S.m; j++) {
        const Value b = carrying(w.b[j], dy[j], much), y = abs(dy[j]);
        const int first = S.A_start[j], end = S.A_start[j + 1];
        change_at(terms, S.A_column, first, end, [&](int e, Value sum) { return sum + abs(w.A[e]) * y; });
        change_at(natural, S.A_column, first, end,
                  [&](int e, Value most) { return max(most, over_entry(b, w.A[e], least)); });
    }
    const Value sum = sum_of(0, S.n, [&](int i) {
        return select(abs(left[i]) <= CANCELLED * terms[i], Value{}, abs(left[i]) * natural[i]);
    });
    return certificate_ratio(sum, -product_beyond_rounding(w.b, dy, S.m));
}

// What dx (n) leaves of A dx + ds = 0 times the natural sizes of y, where q'dx = -1. Uses w.turned,
// w.scratch.
inline Value falls_forever(const Shape &S, Workspace &w, const Pack *dx) {
    Pack *inside = w.scratch, *terms = inside + S.m, *natural = w.scratch + 2 * S.m;
    const Value least = NO_ENTRY * infinity_norm(w.A, S.nnz_A);
    const Value much = MUCH * largest_of(0, S.n, [&](int i) { return abs(w.q[i] * dx[i]); });
    multiply_A(S, w.A, dx, w.turned);
    fill(w.turned, S.m, [&](int j) { return -w.turned[j]; });
    project(S, w.roots, w.turned, inside, all(), false);
    for (int j = 0; j < S.m; j++) {
        const int first = S.A_start[j], end = S.A_start[j + 1];
        set(terms[j], sum_of(first, end, [&](int e) { return abs(w.A[e] * dx[S.A_column[e]]); }));
        set(natural[j], largest_of(first, end, [&](int e) {
                const int i = S.A_column[e];
                return over_entry(carrying(w.q[i], dx[i], much), w.A[e], least);
            }));
    }
    for (int cone = 0, at = S.separable(); at < S.m; at += S.rows_of(cone++)) {
        spread_largest(terms + at, S.rows_of(cone));
        spread_largest(natural + at, S.rows_of(cone));
    }
    const Value sum = sum_of(0, S.m, [&](int j) {
        const Value left = abs(inside[j] - w.turned[j]);
        return select(left <= CANCELLED * terms[j], Value{}, left * natural[j]);
    });
    return certificate_ratio(sum, -product_beyond_rounding(w.q, dx, S.n));
}

// The lanes of `mask` where dy (m), of that residual, proves that nothing is feasible. Uses w.scratch.
inline Mask proves_no_point(const Shape &S, Workspace &w, const Pack *dy, Value residual, Mask mask,
                            double eps) {
    Mask proves = mask & (residual <= eps);
    if (any(proves))
        proves &= excludes_all(S, w, dy) <= BY_SCALE;
    return proves;
}

// The lanes of `mask` where dx (n), of that residual, proves that the objective falls forever. Uses w.turned,
// w.scratch.
inline Mask proves_no_bound(const Shape &S, Workspace &w, const Pack *dx, Value residual, Mask mask,
                            double eps) {
    Mask proves = mask & (residual <= eps);
    if (any(proves))
        proves &= falls_forever(S, w, dx) <= BY_SCALE;
    return proves;
}

} // namespace cvxfold
