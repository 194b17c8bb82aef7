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
CVXFOLD_LONG void reset(const Shape &S, Pack *roots) {
    fill(roots, S.exponential + S.power, [](int) { return splat(0.5); });
    each_semidefinite(S, 0, roots + S.exponential + S.power,
                      [](int order, int, Pack *U) { set_identity(order, U); });
}

// Calls visit(number, what is seen, root) for each of `count` cones in R^3, whose roots are looked for
// TOGETHER at a time, in the lanes of `mask`, and kept there if asked. Kind: how a cone is seen, by its
// number. A cone is one thread's.
template <typename Kind, typename Visit>
inline void each_in_R3(const Kind &kind, int count, const Pack *u, Pack *roots, Mask mask, bool keep,
                       bool roughly, Visit visit) {
    together();
    for (int first = number_in_group() * TOGETHER; first < count; first += GROUP * TOGETHER) {
        const int some = least(TOGETHER, count - first);
        typename Kind::Seen seen[TOGETHER];
        Bracket brackets[TOGETHER];
        for (int i = 0; i < some; i++) {
            const Pack *at = u + 3 * (first + i);
            seen[i] = kind.seen(first + i, at[0], at[1], at[2]);
            brackets[i] = kind.bracket(seen[i], roots[first + i]);
            brackets[i].done |= ~mask;
        }
        find_roots(brackets, some, kind.nearly(roughly), [&](int i, Value x, Value &value, Value &move) {
            kind.balance(first + i, seen[i], x, value, move);
        });
        for (int i = 0; i < some; i++) {
            const Value root = kind.root_of(seen[i], brackets[i]);
            if (keep)
                roots[first + i] = select(mask & ~seen[i].flat, root, roots[first + i]);
            visit(first + i, seen[i], root);
        }
    }
    together();
}

struct Exponential {
    typedef exponential::Seen Seen;

    double nearly(bool roughly) const { return roughly ? ROUGHLY_BY_CUBE : NEARLY_BY_CUBE; }
    Seen seen(int, Value r, Value s, Value t) const { return exponential::seen(r, s, t); }
    Bracket bracket(const Seen &at, Value guess) const { return exponential::moderate_bracket(at, guess); }
    void balance(int, const Seen &at, Value rho, Value &value, Value &move) const {
        exponential::moderate_balance(at, rho, value, move);
    }
    Value root_of(const Seen &at, const Bracket &found) const { return exponential::root_of(at, found); }
    void look(int, const Seen &at, Value rho, Pack projection[3], Frame3 *frame, bool with_margin) const {
        exponential::look(at, rho, projection, frame, with_margin);
    }
};

struct Power {
    typedef power::Seen Seen;
    const double *alpha;

    double nearly(bool) const { return NEARLY_BY_SQUARE; }
    Seen seen(int c, Value x, Value y, Value z) const { return power::seen(alpha[c], x, y, z); }
    Bracket bracket(const Seen &at, Value guess) const { return power::bracket(at, guess); }
    void balance(int c, const Seen &at, Value tau, Value &value, Value &move) const {
        power::balance(alpha[c], at, tau, value, move);
    }
    Value root_of(const Seen &at, const Bracket &found) const { return select(at.flat, Value{}, found.x); }
    void look(int c, const Seen &at, Value tau, Pack projection[3], Frame3 *frame, bool with_margin) const {
        power::look(alpha[c], at, tau, projection, frame, with_margin);
    }
};

// s = Pi_K(u), (m), in the lanes of `mask`; others are left with numbers of no meaning. keep: whether the
// roots and eigenvectors found are where the next search begins. roughly: whether roots may be off by a
// hundred-thousandth.
CVXFOLD_LONG void project(const Shape &S, Pack *roots, const Pack *u, Pack *s, Mask mask, bool keep,
                          bool roughly = false) {
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
        if (keep)
            fill(U, order * order, [&](int i) { return select(mask, fresh[i], U[i]); });
    });
    const auto project_all = [&](auto kind, int count) {
        each_in_R3(kind, count, u + at, roots, mask, keep, roughly, [&](int c, const auto &seen, Value root) {
            kind.look(c, seen, root, s + at + 3 * c, nullptr, false);
        });
        roots += count;
        at += 3 * count;
    };
    project_all(Exponential(), S.exponential);
    project_all(Power{S.alpha}, S.power);
}

inline void keep_frame(const Frame3 &look, Mask mask, Pack *lambda, Pack *frame) {
    for (int i = 0; i < 3; i++)
        lambda[i] = select(mask, look.lambda[i], lambda[i]);
    for (int i = 0; i < FRAME3; i++)
        frame[i] = select(mask, look.axes[i], frame[i]);
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
        if (margin)
            fill(margin + row, size, [&](int) { return nearest; });
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
        each(order * order, [&](int i) {
            frame[i] = select(mask, fresh[i], frame[i]);
            U[i] = select(mask, fresh[i], U[i]);
        });
        frame += order * order;
    });
    const auto look_at_all = [&](auto kind, int count) {
        each_in_R3(kind, count, u + at, roots, mask, true, false, [&](int c, const auto &seen, Value root) {
            Frame3 found;
            Pack projection[3];
            kind.look(c, seen, root, projection, &found, margin != nullptr);
            keep_frame(found, mask, lambda + at + 3 * c, frame + FRAME3 * c);
            for (int i = 0; margin && i < 3; i++)
                margin[at + 3 * c + i] = found.margin;
        });
        roots += count;
        at += 3 * count;
        frame += FRAME3 * count;
    };
    look_at_all(Exponential(), S.exponential);
    look_at_all(Power{S.alpha}, S.power);
}

} // namespace cvxfold
