// The one matrix of the splitting, of Newton's method, of the interior-point method and of the adjoint:
//
//     K = [ P + sigma I   (E Q'A)' ]
//         [ E Q'A         -G       ]
//
//     splitting   Q = E = I, G = 1/R
//     Newton      D = Q lambda Q', E = (1 - lambda)^1/2, G = (lambda + delta)/R
//     interior    W^2 = Q G Q' (Nesterov and Todd's scaling), E = I
#pragma once

#include "eliminated.hpp"

namespace cvxfold {

const double SIGMA = 1e-7, DELTA = 1e-8;

// What sigma and delta are at least. Hardly any lets steps through where K is badly conditioned, as in long
// unstable dynamics, and leaves rounding where K is singular.
struct Least {
    Value sigma = splat(SIGMA), delta = splat(DELTA);
};
inline Least hardly_any() { return {splat(1e-11), splat(1e-12)}; }
inline Least hardly_any(Mask where) {
    const Least usual, hardly = hardly_any();
    return {select(where, hardly.sigma, usual.sigma), select(where, hardly.delta, usual.delta)};
}

// All but what rows that are eliminated by themselves leave.
//
// Args: E: (m), null for ones. curved_A: the entries of A on the rows of curved cones. G: (m).
CVXFOLD_LONG void assemble(const Shape &S, Workspace &w, Value sigma, const Pack *E, const Pack *curved_A,
                           const Pack *G) {
    each_eliminated(S, nullptr, [&](const MatrixRows &M, Pack *) { // cones may have pairs in common
        change_at(w.K, S.pair_in_K + M.pairs, 0, M.count * (M.count + 1) / 2,
                  [](int, Value) { return Value{}; });
    });
    change_at(w.K, S.diagonal_in_K, 0, S.n, [&](int, Value) { return sigma; });
    change_at(w.K, S.P_in_K, 0, S.nnz_P, [&](int e, Value diagonal) {
        return S.P_row[e] == S.P_column[e] ? diagonal + w.P[e] : Value(w.P[e]);
    });
    for (int j = 0; j < S.m; j++) {
        if (S.A_start[j] < S.A_start[j + 1] && S.A_in_K[S.A_start[j]] < 0)
            continue;
        const Pack *A = j < S.separable() ? w.A : curved_A;
        const Value factor = E ? Value(E[j]) : splat(1);
        change_at(w.K, S.A_in_K, S.A_start[j], S.A_start[j + 1], [&](int e, Value) { return factor * A[e]; });
    }
    change_at(w.K, S.diagonal_in_K + S.n, 0, S.m, [&](int j, Value) { return -G[j]; });
}

CVXFOLD_LONG void factor_splitting(const Shape &S, Workspace &w, Factor factor) {
    Pack *G = w.scratch;
    fill(G, S.m, [&](int j) { return 1.0 / w.R[j]; });
    assemble(S, w, splat(SIGMA), nullptr, w.A, G);
    add_eliminated(S, w, G);
    factorize(S, w.K, factor, w.target);
}

// At w.lambda and w.frame; sets w.E and w.rotated_A.
CVXFOLD_LONG void factor_newton(const Shape &S, Workspace &w, Value regularization, Least least) {
    Value sigma = max(regularization, least.sigma), delta = max(regularization, least.delta);
    Pack *G = w.scratch;
    fill(w.E, S.m, [&](int j) { return sqrt(max(1.0 - w.lambda[j], Value{})); });
    fill(G, S.m, [&](int j) { return (w.lambda[j] + delta) / w.R[j]; });
    if (S.curved())
        rotate_A(S, w.frame, w.A, w.rotated_A);
    assemble(S, w, sigma, w.E, w.rotated_A, G);
    add_eliminated_by_E(S, w, G);
    factorize(S, w.K, w.newton, w.target);
}

// f(i) for i < count into column c of `right`, at place[i].
template <typename F>
inline void put(const Shape &S, const int32_t *place, Pack *right, int c, int count, F f) {
    Pack *own = right + static_cast<size_t>(c) * S.N;
    together();
    in_runs(0, count, [&](int first, auto run) {
        Value value[run.value];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k * GROUP);
        for (int k = 0; k < run.value; k++)
            own[place[first + k * GROUP]] = value[k];
    });
    together();
}

// Column c of `right`, (C, N) in the elimination order, from parts (n) and (m).
inline void gather(const Shape &S, Pack *right, int c, const Pack *upper, const Pack *lower) {
    put(S, S.place, right, c, S.n, [&](int i) { return upper[i]; });
    put(S, S.place + S.n, right, c, S.m, [&](int j) { return lower[j]; });
}

inline void scatter(const Shape &S, const Pack *right, int c, Pack *upper, Pack *lower) {
    const Pack *own = right + static_cast<size_t>(c) * S.N;
    fill(upper, S.n, [&](int i) { return own[S.place[i]]; });
    fill(lower, S.m, [&](int j) { return own[S.place[S.n + j]]; });
}

} // namespace cvxfold
