// What q and b are divided by, and the scale c of the cost, c (x'Px/2 + q'x) (Stellato et al., "OSQP: an
// operator splitting solver for quadratic programs", 2020, section 5.1).
//
// Prices of 1e-9 beside amounts of 1 say as much as prices of 1, but y is as small as they are, and whatever
// compares y with s, the penalty above all, is off by that much. So where |q| and |b| are far apart c makes
// them alike. A program without P is homogeneous in each of them by itself. With a P, that is in it again
// equilibrated, which undoes what c should not have done, but only P's part of what c has lowered: c < 1
// where variables that P does not know ask for it.
//
// c goes into D and E, as D c^1/2 and E c^-1/2, which leaves A as it is. Its root is a power of two, so that
// nothing is rounded.
#pragma once

#include "elementary.hpp"
#include "equilibrate.hpp"
#include "far_bounds.hpp"
#include "tilt.hpp"

namespace cvxfold {

const double UNEVEN = 1e3;          // |q| over |b|, or the other way round
const double MOST_WITH_P = 1 << 27; // of the root of c P, and of 1/c, so that equilibration can undo c

// What q and b are divided by, the larger of both, 1 where both are zero; the limit of far bounds, beside it;
// the root of c.
struct Scale {
    Value size, limit, cost;
};

// The largest |q_i| of variables that P does not know. Uses w.scratch.
inline Value largest_linear(const Shape &S, const Workspace &w) {
    Pack *of_P = w.scratch;
    clear(of_P, S.n);
    add_over_P(S, of_P, [&](int e, int, Value sum) { return sum + abs(w.P[e]); });
    const auto linear = [&](int i) { return select(of_P[i] == 0.0, abs(w.q[i]), Value{}); };
    return fold(0, S.n, Value{}, linear, Larger());
}

// The root of c, at equilibrated w.P, w.q and w.b, whose far bounds, those above `limit`, do not count;
// mostly 1.
inline Value scale_of_cost(const Shape &S, const Workspace &w, Value limit) {
    const Value rest = limit / FAR_BEYOND;
    const auto near = [&](int j) { return select(w.b[j] > limit, rest, abs(w.b[j])); };
    const Value b = fold(0, S.m, Value{}, near, Largest());
    Value q = infinity_norm(w.q, S.n);
    const auto is_uneven = [&] { return (q > 0.0) & (b > 0.0) & ((q > UNEVEN * b) | (b > UNEVEN * q)); };
    if (!any(is_uneven()))
        return splat(1);
    const Value P = infinity_norm(w.P, S.nnz_P);
    const Mask quadratic = P > 0.0;
    if (any(quadratic & (q > b)))
        q = select(quadratic & (q > b), largest_linear(S, w), q);
    const Value root = leading_power(sqrt(b / max(q, splat(2.3e-308))));
    const Value most = leading_power(MOST_WITH_P / sqrt(max(P, splat(2.3e-308))));
    const Value least = select(quadratic, splat(1 / MOST_WITH_P), Value{});
    return select(is_uneven(), max(select(quadratic, min(root, most), root), least), splat(1));
}

// P, A, D and E in a place of this pack's own, where they are in what the batch shares.
inline void take_apart(const Shape &S, Workspace &w) {
    const Matrices &to = w.apart;
    if (!to.columns)
        return;
    fill(to.P, S.nnz_P, [&](int e) { return w.P[e]; });
    fill(to.A, S.nnz_A, [&](int e) { return w.A[e]; });
    fill(to.columns, S.n, [&](int i) { return w.columns[i]; });
    fill(to.rows, S.m, [&](int j) { return w.rows[j]; });
    serve(to, w);
}

// P <- c P, equilibrated again where there is a P; `root` that of c. What D and E become is what they were
// times what is left in w.found (n, m).
CVXFOLD_LONG void scale_cost(const Shape &S, Workspace &w, Value root) {
    take_apart(S, w);
    Pack *D = w.found, *E = D + S.n;
    const Value inverse = 1.0 / root;
    fill(D, S.n, [&](int i) { return w.columns[i]; });
    fill(E, S.m, [&](int j) { return w.rows[j]; });
    fill(w.P, S.nnz_P, [&](int e) { return w.P[e] * (root * root); });
    fill(w.columns, S.n, [&](int) { return splat(1); });
    fill(w.rows, S.m, [&](int) { return splat(1); });
    if (S.nnz_P > 0)
        equilibrate(S, w, root == 1.0, MOST_WITH_P);
    fill(w.columns, S.n, [&](int i) { return w.columns[i] * root; });
    fill(w.rows, S.m, [&](int j) { return w.rows[j] * inverse; });
    each(S.n, [&](int i) {
        const Value by = w.columns[i];
        w.columns[i] = D[i] * by;
        D[i] = by;
    });
    each(S.m, [&](int j) {
        const Value by = w.rows[j];
        w.rows[j] = E[j] * by;
        E[j] = by;
    });
}

// q <- D q/size, b <- E b/size, where the cost is scaled and, in the lanes of `nearer`, bounds that are far
// are brought near.
inline Scale scale_vectors(const Shape &S, Workspace &w, Mask nearer) {
    fill(w.q, S.n, [&](int i) { return w.q[i] * w.columns[i]; });
    tilt(S, w, w.b);
    fill(w.b, S.m, [&](int j) { return w.b[j] * w.rows[j]; });
    Value limit = limit_of_bounds(S, w);
    const Value cost = select(tilted(S, w), splat(1), scale_of_cost(S, w, limit)); // there sizes are alike
    if (any(cost != 1.0)) {                                                        // hardly ever
        scale_cost(S, w, cost);
        fill(w.q, S.n, [&](int i) { return w.q[i] * w.found[i]; });
        fill(w.b, S.m, [&](int j) { return w.b[j] * w.found[S.n + j]; });
        limit = limit_of_bounds(S, w);
    }
    limit = select(nearer, limit, splat(infinite()));
    bring_near(S, w, limit);
    Value size = largest(infinity_norm(w.q, S.n), infinity_norm(w.b, S.m));
    size = select(size == 0.0, splat(1), size);
    Value inverse = 1.0 / size;
    fill(w.q, S.n, [&](int i) { return w.q[i] * inverse; });
    fill(w.b, S.m, [&](int j) { return w.b[j] * inverse; });
    fill(w.beyond, S.m, [&](int j) { return w.beyond[j] * inverse; });
    return {size, limit * inverse, cost};
}

} // namespace cvxfold
