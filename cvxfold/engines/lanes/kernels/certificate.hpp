// Directions that prove that there is no solution, in SCS's definitions:
//
//     infeasible   dy in K*,  b'dy = -1,  |A'dy| <= eps
//     unbounded    q'dx = -1,  |P dx| <= eps,  |A dx + ds| <= eps  with ds in K
//
// where q and b are divided by their largest entry, so that the size of the data does not decide. The steps
// of the splitting tend to such directions where there are any (Banjac, Goulart, Stellato and Boyd,
// "Infeasibility detection in the alternating direction method of multipliers for convex optimization",
// 2019).
#pragma once

#include "residual.hpp"

namespace cvxfold {

const double CERTIFICATE_ROUNDING = 1e-14, OUT_OF_REACH = 1e12;

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

} // namespace cvxfold
