// Looking at J, the Jacobian of b - s - A x in the state u, by the factor of the regularized K.
//
// J du = r is K (dx, z) = (-A'R r, E Q'r), with du = Q v, v = -z/(R E) where lambda <= 1/2, else Q'(r - A
// dx)/lambda. What K makes zero, an exact solution leaves alone: with K + T the regularized matrix, (K +
// T)^-1 T keeps a null vector of K and damps everything else by the regularization over the rest's
// eigenvalue.
#pragma once

#include "tilt.hpp"

#include "layout.hpp"
#include "newton.hpp"

namespace cvxfold {

const double FELT = 1e-7; // as cvxfold.gradient.screen has it

// Answers of an inspection.
const double NO = 0, PERHAPS = 1, YES = 2;

// The right-hand side of J du = r into column c. Uses w.turned and `upper` (n).
inline void gather_state(const Shape &S, Workspace &w, const Pack *r, Pack *upper, int c) {
    fill(w.turned, S.m, [&](int j) { return w.R[j] * r[j]; });
    clear(upper, S.n);
    add_A_transposed(S, w.A, w.turned, upper);
    put(S, S.place, w.right, c, S.n, [&](int i) { return -upper[i]; });
    into_frame(S, w.frame, r, w.turned);
    put(S, S.place + S.n, w.right, c, S.m, [&](int j) { return w.E[j] * w.turned[j]; });
}

// The step that is left of Newton's method, from w.dual and w.primal, into column c. Uses w.turned.
inline void gather_step(const Shape &S, Workspace &w, int c) {
    into_frame(S, w.frame, w.primal, w.turned);
    put(S, S.place, w.right, c, S.n, [&](int i) { return -w.dual[i]; });
    put(S, S.place + S.n, w.right, c, S.m, [&](int j) { return -w.E[j] * w.turned[j]; });
}

// T (dx, z) for a solution (N) as `scatter` leaves it, into column c.
inline void gather_null(const Shape &S, Workspace &w, const Pack *solution, int c) {
    put(S, S.place, w.right, c, S.n, [&](int i) { return SIGMA * solution[i]; });
    put(S, S.place + S.n, w.right, c, S.m, [&](int j) { return -DELTA / w.R[j] * solution[S.n + j]; });
}

// du (m) of a solution (dx, z), (N); r: (m), null for zero.
CVXFOLD_LONG void state_of(const Shape &S, Workspace &w, const Pack *solution, const Pack *r, Pack *du) {
    multiply_A(S, w.A, solution, du);
    fill(du, S.m, [&](int j) { return (r ? Value(r[j]) : Value{}) - du[j]; });
    into_frame(S, w.frame, du, du);
    fill(du, S.m, [&](int j) {
        Value by_multiplier = -solution[S.n + j] / (w.R[j] * max(w.E[j], splat(0.5)));
        return select(w.lambda[j] <= 0.5, by_multiplier, du[j] / (w.lambda[j] + DELTA));
    });
    out_of_frame(S, w.frame, du, du);
}

// (1.7 p^2 + p)/(2 pi) for p = j + 1, of which whole turns do not count, in 2^64ths of a turn.
inline uint64_t angle(int j) {
    const uint64_t place = static_cast<uint64_t>(j) + 1;
    return (0x4543a4a87adcef65 * place + 0x28be60db9391054a) * place;
}

// A vector without a preferred direction, the same at every call: from 1 to -1 and back as the angle turns.
inline double generic(int j) {
    const double turned = static_cast<double>(static_cast<int64_t>(angle(j))) * 0x1p-62; // from -2 to 2
    return turned < 0 ? 1 + turned : 1 - turned;
}

// What stands for a rounding error over its bound, between 1/2 and 3/2 and of either sign. Multiples of the
// golden ratio keep neighbours apart, so that neither the sum nor the difference of two whose bounds are
// equal, as they are in a cone's boundary, is next to nothing.
inline double share(int j) {
    const double turns = 0.6180339887498949 * (j + 1), part = turns - (double)(int32_t)turns;
    return part < 0.5 ? 0.5 + 2 * part : 0.5 - 2 * part;
}

// |K v| for a v = (dx, z), (N), of length 1, K without regularization. Uses w.turned, w.dx, w.du.
CVXFOLD_LONG Value null_residual(const Shape &S, Workspace &w, const Pack *v) {
    Pack *dy = w.turned, *upper = w.dx, *lower = w.du;
    fill(dy, S.m, [&](int j) { return w.E[j] * v[S.n + j]; });
    out_of_frame(S, w.frame, dy, dy);
    multiply_P(S, w.P, v, upper);
    add_A_transposed(S, w.A, dy, upper);
    multiply_A(S, w.A, v, lower);
    into_frame(S, w.frame, lower, lower);
    const Value squares = sum_of(0, S.m, [&](int j) {
        const Value rest = w.E[j] * lower[j] - w.lambda[j] / w.R[j] * v[S.n + j];
        return rest * rest;
    });
    return sqrt(squares + squared_norm(upper, S.n));
}

// Leaves in dy (m) how a null vector (dx, z), (N), moves the multipliers, in own units; returns the length,
// in equilibrated ones, below which a part of it is none. Uses w.scratch.
CVXFOLD_LONG Value moved_multipliers(const Shape &S, Workspace &w, const Pack *null, Pack *dy) {
    Pack *du = w.scratch;
    state_of(S, w, null, nullptr, du);
    const Value length = FELT * sqrt(squared_norm(du, S.m));
    fill(dy, S.m, [&](int j) { return w.E[j] * null[S.n + j]; });
    out_of_frame(S, w.frame, dy, dy);
    fill(dy, S.m, [&](int j) { return select(abs(dy[j]) > length * w.R[j], dy[j] * w.rows[j], Value{}); });
    tilt_dual_back(S, w, dy);
    return length;
}

// What a null vector (dx, z), (N), concerns.
struct Concern {
    Mask seen;  // moves an entry of x or y that the loss looks at
    Mask ties;  // ties the multiplier of an inequality to a row that parameters move
    Mask tilts; // moves a variable along which parameters may tilt the objective
};

// Whether a loss gradient y_bar (rows) on a matrix's multipliers sees dy (rows), of which entries up to
// `least` are none. A Hermitian matrix stands twice in its cone, and its dual variable is a sum of what
// stands there: only the sum over all that the loss looks at is felt.
inline Mask sees_matrix(int rows, const Pack *dy, const Pack *y_bar, Value least) {
    Value sum{}, terms{};
    for (int j = 0; j < rows; j++) {
        const Value term = select(abs(dy[j]) > least, y_bar[j] * dy[j], Value{});
        sum += term, terms += abs(term);
    }
    return abs(sum) > FELT * terms;
}

// Uses w.turned, w.scratch.
CVXFOLD_LONG Concern matters(const Shape &S, const Layout &Y, Workspace &w, const Pack *null,
                             const Pack *x_bar, const Pack *y_given) {
    Pack *dy = w.turned;
    const Value length = moved_multipliers(S, w, null, dy), y_largest = infinity_norm(dy, S.m);
    const Value x_largest =
        fold(0, S.n, Value{}, [&](int i) { return abs(null[i] * w.columns[i]); }, Larger());
    Mask seen = none(), inequality = none(), moved = none(), tilts = none();
    const auto moves = [&](int i) {
        return (abs(null[i]) > length) & (abs(null[i] * w.columns[i]) > FELT * x_largest);
    };
    for (int i = 0; i < S.n; i++)
        seen |= (x_bar[i] != 0.0) & moves(i);
    for (int k = 0; k < Y.moving_q; k++)
        tilts |= moves(Y.which_q[k]);
    for (int k = 0; k < Y.moving_A; k++)
        tilts |= moves(S.A_column[Y.which_A[k]]);
    for (int k = 0; k < Y.moving_P; k++)
        tilts |= moves(S.P_row[Y.which_P[k]]) | moves(S.P_column[Y.which_P[k]]);
    for (int j = 0; j < S.m; j++) {
        const Mask ties = (abs(dy[j]) > FELT * y_largest) & (y_largest > 0.0);
        if (j < S.matrix_row || j >= S.matrix_end)
            seen |= (y_given[j] != 0.0) & ties;
        if (j >= S.zero)
            inequality |= ties;
    }
    for (int cone = S.second_order, at = S.matrix_row; at < S.matrix_end; at += S.rows_of(cone++))
        seen |= sees_matrix(S.rows_of(cone), dy + at, y_given + at, FELT * y_largest);
    for (int k = 0; k < Y.moving_rows; k++)
        moved |= (abs(dy[Y.which_rows[k]]) > FELT * y_largest) & (y_largest > 0.0);
    return {seen, inequality & moved, tilts};
}

} // namespace cvxfold
