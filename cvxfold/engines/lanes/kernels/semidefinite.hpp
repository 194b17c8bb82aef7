// The cone of positive semidefinite matrices, as scaled triangles (column by column, off the diagonal times
// sqrt(2)).
//
// X = U diag(w) U' has the projection U diag(max(w, 0)) U', whose derivative is V -> U (Omega o U'VU) U' with
// Omega 1 between positive eigenvalues, 0 between the others and w_i/(w_i - w_j) between a positive w_i and
// another w_j (Sun and Sun, "Semismooth matrix-valued functions", 2002). So V -> U'VU, which is orthogonal on
// scaled triangles, is the frame. Eigenvectors are found by Jacobi's rotations, from those of the last
// matrix.
#pragma once

#include "product.hpp"

namespace cvxfold {

namespace semidefinite {

const double ROOT_TWO = 1.4142135623730951;
const double EXACT = 4e-17; // of the matrix's norm: what is left off the diagonal
const int MOST_SWEEPS = 20;

inline int rows(int order) { return order * (order + 1) / 2; }

// Where in a triangle column j begins, with its entry on the diagonal.
inline int column_begins(int order, int j) { return j * order - j * (j - 1) / 2; }

inline int frame_size(int order) { return order * order; }

// Packs of scratch memory that the functions below need.
inline int scratch_size(int order) { return 3 * order * order + order; }

// The symmetric matrix (order, order) of a scaled triangle.
inline void unpack(int order, const Pack *triangle, Pack *X) {
    each(order, [&](int j) {
        const Pack *column = triangle + column_begins(order, j) - j;
        X[j * order + j] = column[j];
        for (int i = j + 1; i < order; i++)
            X[i * order + j] = X[j * order + i] = column[i] * (1 / ROOT_TWO);
    });
}

inline void pack(int order, const Pack *X, Pack *triangle) {
    each(order, [&](int j) {
        Pack *column = triangle + column_begins(order, j) - j;
        column[j] = X[j * order + j];
        for (int i = j + 1; i < order; i++)
            column[i] = X[i * order + j] * ROOT_TWO;
    });
}

inline bool is_zero(int size, const Pack *row) {
    for (int i = 0; i < size; i++)
        if (any(row[i] != 0.0))
            return false;
    return true;
}

// Y = U'X U, or U X U', or the columns of its lower triangle alone, not scaled. half: (order). Rows and
// entries of X that are zero in every lane cost nothing: the sums without them have the same bits.
template <bool triangle = false>
CVXFOLD_LONG void turn(int order, const Pack *U, bool transposed, const Pack *X, Pack *CVXFOLD_RESTRICT half,
                       Pack *CVXFOLD_RESTRICT Y) {
    const auto u = [&](int i, int j) { return transposed ? U[i * order + j] : U[j * order + i]; };
    clear(Y, triangle ? rows(order) : order * order);
    for (int k = 0; k < order; k++) {
        const Pack *row = X + k * order;
        if (is_zero(order, row))
            continue;
        clear(half, order);
        for (int l = 0; l < order; l++)
            if (any(row[l] != 0.0))
                fill(half, order, [&](int j) { return fused(row[l], u(l, j), half[j]); });
        each(order, [&](int i) {
            const Value factor = u(k, i);
            Pack *CVXFOLD_RESTRICT row = Y + (triangle ? column_begins(order, i) - i : i * order);
            for (int j = i; j < order; j++)
                row[j] = fused(factor, half[j], row[j]);
        });
    }
    if (triangle)
        return;
    each(order, [&](int i) {
        for (int j = i + 1; j < order; j++)
            Y[j * order + i] = Y[i * order + j];
    });
}

// Diagonalizes X in place by rotations, which U (order, order) takes from the right.
CVXFOLD_LONG void rotate_to_diagonal(int order, Pack *X, Pack *U) {
    const Value norm = squared_norm(X, order * order);
    const Value tiny = EXACT * sqrt(norm);
    for (int sweep = 0; sweep < MOST_SWEEPS; sweep++) {
        Value off{};
        each(order, [&](int p) {
            for (int q = p + 1; q < order; q++)
                off = max(off, abs(X[p * order + q]));
        });
        off = joined(off, Larger());
        const Mask at_work = off > tiny;
        if (!any(at_work))
            return;
        for (int p = 0; p < order; p++)
            for (int q = p + 1; q < order; q++) {
                const Value apq = X[p * order + q];
                const Mask turns = at_work & (abs(apq) > tiny);
                if (!any(turns))
                    continue;
                const Value theta =
                    (X[q * order + q] - X[p * order + p]) / (2.0 * select(turns, apq, splat(1)));
                const Value root = sqrt(theta * theta + 1.0), magnitude = 1.0 / (abs(theta) + root);
                const Value t = select(turns, select(theta >= 0.0, magnitude, -magnitude), Value{});
                const Value c = 1.0 / sqrt(t * t + 1.0), s = t * c;
                one_by_one([&] {
                    X[p * order + p] = fused(-t, apq, X[p * order + p]);
                    X[q * order + q] = fused(t, apq, X[q * order + q]);
                    X[p * order + q] = X[q * order + p] = select(turns, Value{}, apq);
                });
                each(order, [&](int k) {
                    if (k != p && k != q) {
                        const Value kp = X[k * order + p], kq = X[k * order + q];
                        X[k * order + p] = X[p * order + k] = fused(c, kp, -(s * kq));
                        X[k * order + q] = X[q * order + k] = fused(s, kp, c * kq);
                    }
                    const Value up = U[k * order + p], uq = U[k * order + q];
                    U[k * order + p] = fused(c, up, -(s * uq));
                    U[k * order + q] = fused(s, up, c * uq);
                });
            }
    }
}

// Eigenvalues w (order) and eigenvectors U of a scaled triangle; U begins with those of a matrix nearby.
inline void eigen(int order, const Pack *triangle, Pack *U, Pack *w, Pack *scratch) {
    Pack *X = scratch, *Y = X + order * order, *half = Y + order * order;
    unpack(order, triangle, X);
    turn(order, U, true, X, half, Y);
    rotate_to_diagonal(order, Y, U);
    fill(w, order, [&](int i) { return Y[i * order + i]; });
}

// s = Pi_K(u), from and to scaled triangles. U as in `eigen`.
CVXFOLD_LONG void project(int order, const Pack *u, Pack *U, Pack *s, Pack *scratch) {
    Pack *w = scratch + 3 * order * order, *X = scratch, *half = X + order * order, *Y = half + order * order;
    eigen(order, u, U, w, scratch);
    Value least = w[0];
    each(order, [&](int i) {
        least = min(least, w[i]);
        w[i] = select(w[i] <= 0.0, Value{}, w[i]);
    });
    least = joined(least, Smaller());
    clear(X, order * order);
    each(order, [&](int i) { X[i * order + i] = w[i]; });
    turn(order, U, false, X, half, Y);
    pack(order, Y, X);
    // What is in the cone stays as it is, to the last bit.
    fill(s, rows(order), [&](int i) { return select(least >= 0.0, u[i], X[i]); });
}

// Eigenvalues of the derivative, as a triangle, where `mask` is; returns the distance to the nearest kink.
CVXFOLD_LONG Value look(int order, const Pack *u, Pack *U, Mask mask, Pack *lambda, Pack *scratch) {
    Pack *w = scratch + 3 * order * order;
    eigen(order, u, U, w, scratch);
    Value nearest = abs(w[0]);
    each(order, [&](int j) {
        Pack *column = lambda + column_begins(order, j) - j;
        nearest = min(nearest, abs(w[j]));
        for (int i = j; i < order; i++) {
            const Value high = max(w[i], w[j]), low = min(w[i], w[j]), one = splat(1);
            const Mask mixed = (high > 0.0) & (low <= 0.0);
            const Value part = high / select(mixed, high - low, one);
            const Value entry = select(mixed, part, select(low > 0.0, one, Value{}));
            column[i] = select(mask, i == j ? select(w[i] > 0.0, one, Value{}) : entry, column[i]);
        }
    });
    return joined(nearest, Smaller());
}

// U'A U (inward) or U A U' of a scaled triangle. May work in place.
inline void turn_triangle(int order, const Pack *U, bool inward, const Pack *a, Pack *out, Pack *scratch) {
    Pack *X = scratch, *half = X + order * order;
    unpack(order, a, X);
    turn<true>(order, U, inward, X, half, out);
    each(order, [&](int j) {
        Pack *column = out + column_begins(order, j) - j;
        for (int i = j + 1; i < order; i++)
            column[i] = column[i] * ROOT_TWO;
    });
}

} // namespace semidefinite
} // namespace cvxfold
