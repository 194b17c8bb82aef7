// The splitting iteration: Douglas and Rachford's, in the one m-vector u.
//
//     s(u) = Pi_K(u)     x(u) = M^-1 (A'R (b - 2s + u) - q),  M = P + A'R A
//     F(u) = u + alpha (b - s - A x)
//
// With nu = R (A x - b + 2s - u), x and nu solve [P A'; A -1/R] (x, nu) = (-q, b - 2s + u), one factorization
// for all iterations. sigma on P's diagonal is a proximal term about the last x, so that it moves no fixed
// point.
#pragma once

#include "kkt.hpp"
#include "residual.hpp"

namespace cvxfold {

// `count` applications of F to the lanes of `mask`, or as many as there is time for; returns how many.
// roughly: as `project` has it, for a start that another method goes on from.
template <typename TimeLeft>
CVXFOLD_LONG int iterate(const Shape &S, Workspace &w, Factor factor, double alpha, Mask mask, int count,
                         TimeLeft time_left, bool roughly = false) {
    int step = 0;
    for (; step < count && time_left(); step++) {
        project(S, w.roots, w.u, w.s, mask, true, roughly);
        change_at(w.right, S.place, 0, S.n, [&](int i, Value) { return SIGMA * w.x[i] - w.q[i]; });
        change_at(w.right, S.place + S.n, 0, S.m,
                  [&](int j, Value) { return w.b[j] - 2.0 * w.s[j] + w.u[j]; });
        solve_with<1>(S, w, factor, {nullptr, nullptr}, w.right);
        fill(w.x, S.n, [&](int i) { return select(mask, w.right[S.place[i]], w.x[i]); });
        fill(w.u, S.m, [&](int j) {
            Value g = w.s[j] - w.u[j] - w.right[S.place[S.n + j]] / w.R[j]; // b - s - A x
            return select(mask, w.u[j] + alpha * g, w.u[j]);
        });
    }
    return step;
}

const double LARGEST_MOVE = 1e2, LARGEST_PENALTY = 1e5;

// Moves rho toward the balance of both residuals, keeping s and y; returns the lanes where it moved.
inline Mask rebalance(const Shape &S, Workspace &w, Mask mask, Value &rho) {
    residual(S, w, rho);
    const Value nothing = splat(1e-12);
    const Value primal_terms =
        fold(0, S.m, nothing, [&](int j) { return max(abs(w.s[j]), abs(w.b[j])); }, Larger());
    const Value dual_terms =
        fold(0, S.n, nothing, [&](int i) { return max(abs(w.Px[i]), abs(w.q[i])); }, Larger());
    Value primal = infinity_norm(w.primal, S.m) / primal_terms,
          dual = infinity_norm(w.dual, S.n) / dual_terms;
    Value move = sqrt(max(primal, splat(1e-14)) / max(dual, splat(1e-14)));
    move = min(max(move, splat(1 / LARGEST_MOVE)), splat(LARGEST_MOVE));
    Mask moves = mask & ((move > 2.5) | (move < 0.4));
    Value next = min(max(rho * move, splat(1 / LARGEST_PENALTY)), splat(LARGEST_PENALTY));
    next = select(moves, next, rho);
    fill(w.u, S.m, [&](int j) { return select(moves, w.s[j] - (w.s[j] - w.u[j]) * (rho / next), w.u[j]); });
    rho = next;
    set_penalty(S, w, rho);
    return moves;
}

} // namespace cvxfold
