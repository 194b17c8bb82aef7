// The cone of positive semidefinite matrices, as scaled triangles (column by column, off the diagonal times
// sqrt(2)).
//
// X = U diag(w) U' has the projection U diag(max(w, 0)) U', whose derivative is V -> U (Omega o U'VU) U' with
// Omega 1 between positive eigenvalues, 0 between the others and w_i/(w_i - w_j) between a positive w_i and
// another w_j (Sun and Sun, "Semismooth matrix-valued functions", 2002). So V -> U'VU, which is orthogonal on
// scaled triangles, is the frame. Eigenvectors of small matrices are found by Jacobi's rotations, from those
// of the last matrix; pairs of axes are turned in the order of Brent and Luk ("The solution of singular-value
// and symmetric eigenvalue problems on multiprocessor arrays", 1985). Larger ones cost less by way of a
// tridiagonal matrix (tridiagonal.hpp).
#pragma once

#include "dense.hpp"
#include "product.hpp"
#include "tridiagonal.hpp"

namespace cvxfold {

namespace semidefinite {

const double ROOT_TWO = 1.4142135623730951;
const double EXACT = 4e-17; // of the matrix's norm: what is left off the diagonal
const int MOST_SWEEPS = 20;
const int SIDE_BY_SIDE = TOGETHER; // rotations whose angles are found side by side

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

// Calls visit(i, j, (V'X V)_ij) for j <= i. half: (order^2), not V nor X.
template <typename Visit>
inline void congruence(int order, const Pack *V, const Pack *X, Pack *CVXFOLD_RESTRICT half, Visit visit) {
    products(order, X, order, order, V, order, order,
             [&](int i, int j, Value value) { half[i * order + j] = value; });
    products<true>(order, V, order, order, half, order, order, visit);
}

// Y = V'X V. half: (order^2).
CVXFOLD_LONG void turn(int order, const Pack *V, const Pack *X, Pack *CVXFOLD_RESTRICT half,
                       Pack *CVXFOLD_RESTRICT Y) {
    congruence(order, V, X, half,
               [&](int i, int j, Value value) { Y[i * order + j] = Y[j * order + i] = value; });
}

// Two rows turned by an angle of cosine c and sine s.
inline void rotate_rows(int order, Pack *CVXFOLD_RESTRICT p, Pack *CVXFOLD_RESTRICT q, Value c, Value s) {
    each(order, [&](int k) {
        const Value of_p = p[k], of_q = q[k];
        p[k] = fused(c, of_p, -(s * of_q));
        q[k] = fused(s, of_p, c * of_q);
    });
}

// A rotation of the axes p and q that makes X_pq zero.
struct Rotation {
    int p, q;
    Value t, c, s, apq;
    Mask turns;

    Rotation() {}
    Rotation(int order, const Pack *X, int p, int q, Mask at_work, Value tiny) : p(p), q(q) {
        apq = X[p * order + q];
        turns = at_work & (abs(apq) > tiny);
        const Value theta = (X[q * order + q] - X[p * order + p]) / (2.0 * select(turns, apq, splat(1)));
        const Value root = sqrt(theta * theta + 1.0), magnitude = 1.0 / (abs(theta) + root);
        t = select(turns, select(theta >= 0.0, magnitude, -magnitude), Value{});
        c = 1.0 / sqrt(t * t + 1.0), s = t * c;
    }

    // J'X J, of which the rows are turned and the columns follow, and V's rows.
    void apply(int order, Pack *X, Pack *V) const {
        Pack *of_p = X + p * order, *of_q = X + q * order;
        const Value app = of_p[p], aqq = of_q[q];
        rotate_rows(order, of_p, of_q, c, s);
        rotate_rows(order, V + p * order, V + q * order, c, s);
        each(order, [&](int k) {
            if (k == p || k == q)
                return;
            X[k * order + p] = of_p[k];
            X[k * order + q] = of_q[k];
        });
        one_by_one([&] {
            of_p[p] = fused(-t, apq, app);
            of_q[q] = fused(t, apq, aqq);
            of_p[q] = of_q[p] = select(turns, Value{}, apq);
        });
    }
};

// Diagonalizes X in place by rotations, which U (order, order) takes from the right. A sweep turns each pair
// of axes once, in rounds of pairs that have no axis in common (as a tournament has them): those of a round
// do not wait for each other. V: (order^2).
CVXFOLD_LONG void rotate_to_diagonal(int order, Pack *X, Pack *U, Pack *V) {
    const Value norm = squared_norm(X, order * order);
    const Value tiny = EXACT * sqrt(norm);
    const int last = order - 1 + order % 2; // who stays in place; beyond the matrix where that is odd
    transpose(order, U, V);
    for (int sweep = 0; sweep < MOST_SWEEPS; sweep++) {
        Value off{};
        each(order, [&](int p) {
            for (int q = p + 1; q < order; q++)
                off = max(off, abs(X[p * order + q]));
        });
        off = joined(off, Larger());
        const Mask at_work = off > tiny;
        if (!any(at_work))
            break;
        for (int round = 0; round < last; round++)
            for (int first = order % 2; first <= last / 2; first += SIDE_BY_SIDE) {
                const int some = least(SIDE_BY_SIDE, last / 2 + 1 - first);
                Rotation rotations[SIDE_BY_SIDE];
                for (int i = 0; i < some; i++) {
                    const int a = first + i ? (round + first + i) % last : last;
                    const int b = (round + last - first - i) % last;
                    rotations[i] = Rotation(order, X, a < b ? a : b, a < b ? b : a, at_work, tiny);
                }
                for (int i = 0; i < some; i++)
                    if (any(rotations[i].turns))
                        rotations[i].apply(order, X, V);
            }
    }
    transpose(order, V, U);
}

// Eigenvalues w (order) and eigenvectors U of a scaled triangle; U begins with those of a matrix nearby,
// where that is of use.
inline void eigen(int order, const Pack *triangle, Pack *U, Pack *w, Pack *scratch) {
    Pack *X = scratch, *Y = X + order * order, *half = Y + order * order;
    unpack(order, triangle, X);
    if (order >= tridiagonal::LEAST_ORDER)
        return tridiagonal::eigen(order, X, U, w, Y, half);
    turn(order, U, X, half, Y);
    rotate_to_diagonal(order, Y, U, half);
    fill(w, order, [&](int i) { return Y[i * order + i]; });
}

// s = Pi_K(u), from and to scaled triangles. U as in `eigen`.
CVXFOLD_LONG void project(int order, const Pack *u, Pack *U, Pack *s, Pack *scratch) {
    Pack *w = scratch + 3 * order * order, *V = scratch, *weighted = V + order * order;
    eigen(order, u, U, w, scratch);
    Value least = w[0];
    each(order, [&](int i) {
        least = min(least, w[i]);
        w[i] = select(w[i] <= 0.0, Value{}, w[i]);
    });
    least = joined(least, Smaller());
    int positive = 0; // eigenvalues
    for (int k = 0; k < order; k++) {
        if (!any(w[k] != 0.0))
            continue;
        each(order, [&](int i) {
            V[positive * order + i] = U[i * order + k];
            weighted[positive * order + i] = w[k] * U[i * order + k];
        });
        positive++;
    }
    // What is in the cone stays as it is, to the last bit.
    products<true>(positive, weighted, order, order, V, order, order, [&](int i, int j, Value sum) {
        const int at = column_begins(order, j) - j + i;
        s[at] = select(least >= 0.0, u[at], i == j ? sum : sum * ROOT_TWO);
    });
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
    Pack *X = scratch, *half = X + order * order, *V = half + order * order;
    unpack(order, a, X);
    if (!inward)
        transpose(order, U, V);
    congruence(order, inward ? U : V, X, half, [&](int i, int j, Value value) {
        out[column_begins(order, j) - j + i] = i == j ? value : value * ROOT_TWO;
    });
}

} // namespace semidefinite
} // namespace cvxfold
