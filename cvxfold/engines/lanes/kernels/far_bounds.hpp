// Bounds on a single variable that are far beyond what all other data speak of, brought near.
//
// A bound of 1e8 beside data of 1 says no more than "no bound", but its size is what everything would be
// measured against. Where it is inactive its b does not matter: x and y solve the program with another b
// there as well, and s is larger by the difference. So such a b is lowered to a limit,
//
//     limit = FAR_BEYOND max(|b| of other rows and of negative bounds, |q| where there is a P),
//
// or of the smallest positive bound where these are zero, in equilibrated units; only where a bound so
// lowered is active at what is found, or nothing is found, the program is solved as it is given.
#pragma once

#include "product.hpp"
#include "workspace.hpp"

namespace cvxfold {

const double FAR_BEYOND = 1e3;
const double BOUND_IS_ACTIVE = 2; // of Progress::stuck: what was brought near is no solution
const double BY_ITSELF = 3;       // the first pass's common factor is not for it

// Whether row j may be a bound that is brought near.
inline bool is_bound(const Shape &S, int j) {
    return j >= S.zero && j < S.separable() && S.A_start[j + 1] - S.A_start[j] == 1;
}

// Where w.b goes, at equilibrated w.P, w.q and w.b that are not divided by their
// size yet; infinite where there is nothing far.
inline Value limit_of_bounds(const Shape &S, const Workspace &w) {
    const auto other = [&](int j) { return is_bound(S, j) ? max(-w.b[j], Value{}) : abs(w.b[j]); };
    const auto bound = [&](int j) { return is_bound(S, j) ? max(w.b[j], Value{}) : Value{}; };
    const auto inverse = [&](int j) { return select(bound(j) > 0.0, 1.0 / bound(j), Value{}); };
    Value near = fold(0, S.m, Value{}, other, Largest()); // where one is NaN all of a group are to say so
    const Value farthest = fold(S.zero, S.separable(), Value{}, bound, Larger());
    if (!any(farthest > FAR_BEYOND * near)) // mostly
        return splat(infinite());
    near = max(near, select(infinity_norm(w.P, S.nnz_P) > 0.0, infinity_norm(w.q, S.n), Value{}));
    near = select(near > 0.0, near, 1.0 / fold(S.zero, S.separable(), Value{}, inverse, Larger()));
    const Value limit = FAR_BEYOND * near;
    return select(farthest > limit, limit, splat(infinite()));
}

// b <- min(b, limit), and what that takes off into w.beyond, mostly nothing.
inline void bring_near(const Shape &S, Workspace &w, Value limit) {
    fill(w.beyond, S.m, [&](int j) { return select(w.b[j] > limit, w.b[j] - limit, Value{}); });
    fill(w.b, S.m, [&](int j) { return min(w.b[j], limit); });
}

// The lanes where a bound that was brought near is active in the state w.u.
inline Mask touched(const Shape &S, const Workspace &w) {
    const auto touch = [&](int j) {
        return select((w.beyond[j] > 0.0) & ~(w.u[j] > 0.0), splat(1), Value{});
    };
    return fold(S.zero, S.separable(), Value{}, touch, Larger()) > 0.0;
}

} // namespace cvxfold
