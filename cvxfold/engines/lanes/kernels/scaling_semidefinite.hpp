// Nesterov and Todd's scaling of the semidefinite cone, for the interior-point method.
//
// W V = R V R' with R'Y R = R^-1 S R^-T = diag(l) (Todd, Toh and Tutuncu, "On the Nesterov-Todd direction in
// semidefinite programming", 1998): with S = L L' and L'Y L = V diag(l^2) V', R = L V diag(l)^-1/2.
// Directions are kept in the scaled space, a = R^-1 dS R^-T and b = R'dY R, where both points are diag(l).
// There M = R^-T serves as the frame, although it is not orthogonal: M'(.) M scales rows of A, M (.) M'
// unscales dY.
#pragma once

#include "boundary.hpp"
#include "semidefinite.hpp"

namespace cvxfold {

namespace scaling_semidefinite {

const int BISECTIONS = 6; // a step that is 1% too short leaves 1% of the residuals

// The lower Cholesky factor of X (order, order) in place, zeros above it; where it is positive definite.
CVXFOLD_LONG Mask cholesky(int order, Pack *X) {
    Mask positive = all();
    for (int j = 0; j < order; j++) {
        each(order - j, [&](int below) {
            const Pack *row = X + (j + below) * order;
            Value sum = row[j];
            for (int k = 0; k < j; k++)
                sum = fused(-row[k], X[j * order + k], sum);
            X[(j + below) * order + j] = sum;
        });
        const Value pivot = X[j * order + j], root = sqrt(max(pivot, splat(1e-300))), inverse = 1.0 / root;
        positive &= pivot > 0.0;
        each(order - j, [&](int below) {
            const int i = j + below;
            if (below)
                X[j * order + i] = Value{};
            X[i * order + j] = below ? X[i * order + j] * inverse : root;
        });
    }
    return positive;
}

// R, M = R^-T and l (order) of triangles s and y. scratch: (4 order^2).
inline void scale(int order, const Pack *s, const Pack *y, Pack *R, Pack *M, Pack *l, Pack *scratch) {
    const int size = order * order;
    Pack *L = scratch, *Y = L + size, *product = Y + size, *half = product + size;
    semidefinite::unpack(order, s, L);
    cholesky(order, L);
    semidefinite::unpack(order, y, Y);
    semidefinite::turn(order, L, Y, half, product);
    if (order >= tridiagonal::LEAST_ORDER) {
        tridiagonal::eigen(order, product, M, l, R, half);
    } else {
        set_identity(order, M);
        semidefinite::rotate_to_diagonal(order, product, M, half);
        each(order, [&](int j) { l[j] = product[j * (order + 1)]; });
    }
    each(order, [&](int j) { l[j] = sqrt(max(l[j], splat(1e-300))); });
    each(order, [&](int i) {
        for (int j = 0; j < order; j++) {
            Value sum{};
            for (int k = 0; k <= i; k++)
                sum = fused(L[i * order + k], M[k * order + j], sum);
            R[i * order + j] = sum / sqrt(l[j]);
        }
    });
    each(order, [&](int j) { // M = L^-T V diag(l)^1/2
        for (int i = order - 1; i >= 0; i--) {
            Value sum = M[i * order + j] * sqrt(l[j]);
            for (int k = i + 1; k < order; k++)
                sum = fused(-L[k * order + i], M[k * order + j], sum);
            M[i * order + j] = sum / L[i * order + i];
        }
    });
}

// The predictor's x = l \ (-l o l).
inline void predict(int order, const Pack *l, Pack *x) {
    each(order, [&](int j) {
        Pack *column = x + semidefinite::column_begins(order, j) - j;
        for (int i = j; i < order; i++)
            column[i] = i == j ? -l[j] : Value{};
    });
}

// x = l \ (centre 1 - l o l - a o b), with a o b = (a b + b a)/2. scratch: (2 order^2).
struct Corrector {
    const Pack *l, *a, *b;
    Pack *scratch;

    void operator()(int order, Value centre, Pack *x) const {
        Pack *A = scratch, *B = scratch + order * order;
        semidefinite::unpack(order, a, A);
        semidefinite::unpack(order, b, B);
        each(order, [&](int j) {
            Pack *column = x + semidefinite::column_begins(order, j) - j;
            for (int i = j; i < order; i++) {
                Value sum{};
                for (int k = 0; k < order; k++)
                    sum = fused(A[i * order + k], B[j * order + k],
                                fused(B[i * order + k], A[j * order + k], sum));
                const Value e = (i == j ? centre - l[j] * l[j] : Value{}) - 0.5 * sum;
                column[i] = (i == j ? 1.0 : semidefinite::ROOT_TWO) * 2.0 * e / (l[i] + l[j]);
            }
        });
    }
};

// A t <= most for which diag(l) + t a stays in the cone, nearly the largest. scratch: (2 order^2).
CVXFOLD_LONG Value to_boundary(int order, const Pack *l, const Pack *a, Value most, Pack *scratch) {
    Pack *D = scratch, *X = scratch + order * order;
    semidefinite::unpack(order, a, D);
    const auto inside = [&](Value t) {
        each(order, [&](int i) {
            for (int j = 0; j <= i; j++)
                X[i * order + j] = fused(t, D[i * order + j], i == j ? Value(l[i]) : Value{});
        });
        return cholesky(order, X);
    };
    return longest_inside(inside, most, BISECTIONS);
}

// The least eigenvalue of a triangle. U: (order^2), becomes its eigenvectors. scratch: as `eigen` needs it.
inline Value depth(int order, const Pack *v, Pack *U, Pack *scratch) {
    Pack *w = scratch + 3 * order * order;
    set_identity(order, U);
    semidefinite::eigen(order, v, U, w, scratch);
    Value least = w[0];
    for (int i = 1; i < order; i++)
        least = min(least, w[i]);
    return least;
}

// Adds to the diagonal of a triangle.
inline void shift(int order, Pack *v, Value by) {
    each(order, [&](int j) { v[semidefinite::column_begins(order, j)] += by; });
}

} // namespace scaling_semidefinite
} // namespace cvxfold
