// The one matrix of the splitting, of Newton's method, of the interior-point method and of the adjoint:
//
//     K = [ P + sigma I   (E Q'A)' ]
//         [ E Q'A         -G       ]
//
//     splitting   Q = E = I, G = 1/R
//     Newton      D = Q lambda Q', E = (1 - lambda)^1/2, G = (lambda + delta)/R
//     interior    W^2 = Q G Q' (Nesterov and Todd's scaling), E = I
#pragma once

#include "frames.hpp"
#include "workspace.hpp"

namespace cvxfold {

const double SIGMA = 1e-7, DELTA = 1e-8;

// Args: E: (m), null for ones. curved_A: the entries of A on the rows of curved cones. G: (m).
CVXFOLD_LONG void assemble(const Shape &S, Workspace &w, Value sigma, const Pack *E, const Pack *curved_A,
                           const Pack *G) {
    for (int i = 0; i < S.n; i++)
        w.K[S.diagonal_in_K[i]] = sigma;
    for (int e = 0; e < S.nnz_P; e++) {
        if (S.P_row[e] == S.P_column[e])
            w.K[S.P_in_K[e]] += w.P[e];
        else
            w.K[S.P_in_K[e]] = w.P[e];
    }
    for (int j = 0; j < S.m; j++) {
        const Pack *A = j < S.separable() ? w.A : curved_A;
        const Value factor = E ? Value(E[j]) : splat(1);
        for (int e = S.A_start[j]; e < S.A_start[j + 1]; e++)
            w.K[S.A_in_K[e]] = factor * A[e];
        w.K[S.diagonal_in_K[S.n + j]] = -G[j];
    }
}

inline void factor_splitting(const Shape &S, Workspace &w, Factor factor) {
    Pack *G = w.scratch;
    for (int j = 0; j < S.m; j++)
        G[j] = 1.0 / w.R[j];
    assemble(S, w, splat(SIGMA), nullptr, w.A, G);
    factorize(S, w.K, factor, w.target);
}

// At w.lambda and w.frame; sets w.E and w.rotated_A.
inline void factor_newton(const Shape &S, Workspace &w, Value regularization) {
    Value sigma = max(regularization, splat(SIGMA)), delta = max(regularization, splat(DELTA));
    Pack *G = w.scratch, *column = w.scratch + S.N;
    for (int j = 0; j < S.m; j++) {
        w.E[j] = sqrt(max(1.0 - w.lambda[j], Value{}));
        G[j] = (w.lambda[j] + delta) / w.R[j];
    }
    if (S.curved())
        rotate_A(S, w.frame, w.A, w.rotated_A, column);
    assemble(S, w, sigma, w.E, w.rotated_A, G);
    factorize(S, w.K, w.newton, w.target);
}

// Column c of `right`, (N C) in the elimination order, from parts (n) and (m).
template <int C>
inline void gather(const Shape &S, Pack *right, int c, const Pack *upper, const Pack *lower) {
    for (int i = 0; i < S.n; i++)
        right[S.place[i] * C + c] = upper[i];
    for (int j = 0; j < S.m; j++)
        right[S.place[S.n + j] * C + c] = lower[j];
}

template <int C> inline void scatter(const Shape &S, const Pack *right, int c, Pack *upper, Pack *lower) {
    for (int i = 0; i < S.n; i++)
        upper[i] = right[S.place[i] * C + c];
    for (int j = 0; j < S.m; j++)
        lower[j] = right[S.place[S.n + j] * C + c];
}

} // namespace cvxfold
