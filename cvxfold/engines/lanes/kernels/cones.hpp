// The product of all cones: projections, and the frames Q in which the derivative D = Q diag(lambda) Q' is
// diagonal.
//
// `roots` (S.roots) is where root finding and eigenvectors begin; they become what they come to only where a
// mask says so: a point that is looked at once more, for a neighbour's sake, must give the same bits. The end
// of `roots` and of `frame` is scratch memory.
#pragma once

#include "exponential.hpp"
#include "power.hpp"
#include "second_order.hpp"
#include "semidefinite.hpp"
#include "shape.hpp"

namespace cvxfold {

const int FRAME3 = 9; // packs of the frame of a cone in R^3

// Calls visit(order, first row, eigenvectors) for each semidefinite cone; returns the row that follows.
template <typename Visit>
inline int each_semidefinite(const Shape &S, int at, Pack *eigenvectors, Visit visit) {
    for (int c = 0; c < S.semidefinite; c++) {
        const int order = S.orders[c];
        visit(order, at, eigenvectors);
        eigenvectors += semidefinite::frame_size(order);
        at += semidefinite::rows(order);
    }
    return at;
}

inline int eigenvector_packs(const Shape &S) {
    int packs = 0;
    for (int c = 0; c < S.semidefinite; c++)
        packs += semidefinite::frame_size(S.orders[c]);
    return packs;
}

// Scratch of the semidefinite cones: a matrix of eigenvectors, and what the functions there need.
inline int cone_scratch(const Shape &S) {
    int packs = 0;
    for (int c = 0; c < S.semidefinite; c++) {
        const int order = S.orders[c];
        const int needed = semidefinite::frame_size(order) + semidefinite::scratch_size(order);
        packs = needed > packs ? needed : packs;
    }
    return packs;
}

// Roots and eigenvectors begin anew, so that what follows does not depend on what came before.
inline void reset(const Shape &S, Pack *roots) {
    for (int c = 0; c < S.exponential + S.power; c++)
        roots[c] = splat(0.5);
    each_semidefinite(S, 0, roots + S.exponential + S.power, [](int order, int, Pack *U) {
        fill(U, order * order, [&](int i) { return splat(i % (order + 1) == 0 ? 1 : 0); });
    });
}

// s = Pi_K(u), (m).
CVXFOLD_LONG void project(const Shape &S, Pack *roots, const Pack *u, Pack *s, Mask keep) {
    clear(s, S.zero);
    fill(s + S.zero, S.nonnegative,
         [&](int i) { return select(u[S.zero + i] <= 0.0, Value{}, u[S.zero + i]); });
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        second_order::project(S.sizes[c], u + at, s + at);
    Pack *known = roots + S.exponential + S.power, *fresh = known + eigenvector_packs(S);
    at = each_semidefinite(S, at, known, [&](int order, int row, Pack *U) {
        fill(fresh, order * order, [&](int i) { return U[i]; });
        semidefinite::project(order, u + row, fresh, s + row, fresh + order * order);
        fill(U, order * order, [&](int i) { return select(keep, fresh[i], U[i]); });
    });
    for (int c = 0; c < S.exponential + S.power; c++, at += 3) {
        Value root = roots[c];
        if (c < S.exponential)
            exponential::look(u[at], u[at + 1], u[at + 2], root, s + at, nullptr, false);
        else
            power::look(S.alpha[c - S.exponential], u[at], u[at + 1], u[at + 2], root, s + at, nullptr,
                        false);
        roots[c] = select(keep, root, roots[c]);
    }
}

inline void keep_frame(const Frame3 &look, Mask mask, Pack *lambda, Pack *frame) {
    fill(lambda, 3, [&](int i) { return select(mask, look.lambda[i], lambda[i]); });
    fill(frame, FRAME3, [&](int i) { return select(mask, look.axes[i], frame[i]); });
}

// lambda (m) and the frames (S.frame) at u, where `mask` is; `margin` (m), where not null, becomes the
// distance of each row's cone from the nearest point without a derivative, infinite for equalities.
CVXFOLD_LONG void look(const Shape &S, Pack *roots, const Pack *u, Mask mask, Pack *lambda, Pack *frame,
                       Pack *margin) {
    fill(lambda, S.separable(), [&](int i) {
        Value active = i >= S.zero ? select(u[i] > 0.0, splat(1), Value{}) : Value{};
        return select(mask, active, lambda[i]);
    });
    if (margin)
        fill(margin, S.separable(), [&](int i) { return i >= S.zero ? abs(u[i]) : splat(infinite()); });
    const auto set_margin = [&](int row, int size, Value nearest) {
        for (int i = 0; margin && i < size; i++)
            margin[row + i] = nearest;
    };
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c];
        set_margin(at, size, second_order::look(size, u + at, mask, lambda + at, frame));
        frame += second_order::frame_size(size);
        at += size;
    }
    Pack *known = roots + S.exponential + S.power, *fresh = known + eigenvector_packs(S);
    at = each_semidefinite(S, at, known, [&](int order, int row, Pack *U) {
        fill(fresh, order * order, [&](int i) { return U[i]; });
        Pack *scratch = fresh + order * order;
        const Value nearest = semidefinite::look(order, u + row, fresh, mask, lambda + row, scratch);
        set_margin(row, semidefinite::rows(order), nearest);
        for (int i = 0; i < order * order; i++, frame++) {
            *frame = select(mask, fresh[i], *frame);
            U[i] = select(mask, fresh[i], U[i]);
        }
    });
    for (int c = 0; c < S.exponential + S.power; c++, at += 3, frame += FRAME3) {
        Frame3 seen;
        Pack projection[3], root = roots[c];
        if (c < S.exponential)
            exponential::look(u[at], u[at + 1], u[at + 2], root, projection, &seen, margin != nullptr);
        else
            power::look(S.alpha[c - S.exponential], u[at], u[at + 1], u[at + 2], root, projection, &seen,
                        margin != nullptr);
        roots[c] = select(mask, root, roots[c]);
        keep_frame(seen, mask, lambda + at, frame);
        set_margin(at, 3, seen.margin);
    }
}

} // namespace cvxfold
