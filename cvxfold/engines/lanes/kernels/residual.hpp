// What is left of the optimality conditions at a state u and a point x.
#pragma once

#include "pairs.hpp"
#include "product.hpp"
#include "workspace.hpp"

namespace cvxfold {

struct Residual {
    Value relative; // the larger of both residuals, each over the largest of its terms and the data
    Value merit;    // |(Px + q + A'y, rho (Ax + s - b))|, what Newton's line search lowers
};

const double EQUALITY_PENALTY = 10; // times rho on the zero cone

inline void set_penalty(const Shape &S, Workspace &w, Value rho) {
    fill(w.R, S.m, [&](int j) { return j < S.zero ? rho * EQUALITY_PENALTY : rho; });
}

// y = R (s - u).
inline void set_multipliers(const Shape &S, Workspace &w, const Pack *u) {
    fill(w.y, S.m, [&](int j) { return w.R[j] * (w.s[j] - u[j]); });
}

// s = Pi_K(u) and y = R (s - u) (Moreau's decomposition).
CVXFOLD_LONG void decompose(const Shape &S, Workspace &w, const Pack *u) {
    project(S, w.roots, u, w.s, all(), false);
    set_multipliers(S, w, u);
}

// The same at w.u for the lanes of `mask`, whose roots begin there the next time. Those of other lanes must
// be there already, and keep their bits.
CVXFOLD_LONG void decompose_anew(const Shape &S, Workspace &w, Mask mask) {
    if (!S.seeks_roots())
        return decompose(S, w, w.u);
    project(S, w.roots, w.u, w.y, mask, true);
    fill(w.s, S.m, [&](int j) { return select(mask, w.y[j], w.s[j]); });
    set_multipliers(S, w, w.u);
}

// At x = w.x, u = w.u, s and y; leaves both residuals and Px in w.
CVXFOLD_LONG Residual remaining(const Shape &S, Workspace &w, Value rho) {
    multiply_P(S, w.P, w.x, w.Px);
    clear(w.dual, S.n);
    add_A_transposed_by_pairs(S, w);
    multiply_A(S, w.A, w.x, w.primal);
    Value dual_terms = splat(1), primal_terms = splat(1), dual{}, primal{}, dual_squares{}, primal_squares{};
    fill(w.dual, S.n, [&](int i) {
        dual_terms = max(dual_terms, max(abs(w.Px[i]), abs(w.dual[i])));
        const Value rest = w.dual[i] + (w.Px[i] + w.q[i]);
        dual = largest(dual, abs(rest));
        dual_squares = fused(rest, rest, dual_squares);
        return rest;
    });
    fill(w.primal, S.m, [&](int j) {
        primal_terms = max(primal_terms, max(abs(w.primal[j]), abs(w.s[j])));
        const Value rest = w.primal[j] + (w.s[j] - w.b[j]);
        primal = largest(primal, abs(rest));
        primal_squares = fused(rest, rest, primal_squares);
        return rest;
    });
    mend_pairs(S, w);
    dual_terms = joined(dual_terms, Larger()), primal_terms = joined(primal_terms, Larger());
    dual = joined(dual, Largest()), primal = joined(primal, Largest());
    dual_squares = joined(dual_squares, Sum()), primal_squares = joined(primal_squares, Sum());
    Residual r;
    r.relative = largest(dual / dual_terms, primal / primal_terms);
    r.merit = sqrt(dual_squares + rho * rho * primal_squares);
    return r;
}

// At x = w.x and u = w.u; leaves s, y, both residuals and Px in w.
inline Residual residual(const Shape &S, Workspace &w, Value rho) {
    decompose(S, w, w.u);
    return remaining(S, w, rho);
}

// The same, with s and y anew for the lanes of `mask` alone.
inline Residual residual_anew(const Shape &S, Workspace &w, Value rho, Mask mask) {
    decompose_anew(S, w, mask);
    return remaining(S, w, rho);
}

// In SCS's definitions and the program's own units (O'Donoghue, "Operator splitting for a homogeneous
// embedding of the linear complementarity problem", 2021, section 4).
struct Measured {
    Value primal, dual, gap;                   // |Ax + s - b|, |Px + q + A'y|, |x'Px + q'x + b'y|
    Value primal_terms, dual_terms, gap_terms; // what each is measured against
};

// At x, s, y, Px, dual and primal as `residual` left them.
CVXFOLD_LONG Measured measure(const Shape &S, const Workspace &w, Value size) {
    Measured out{};
    Value quadratic{}, linear{}, support{};
    each(S.n, [&](int i) {
        Value unit = size / w.columns[i], Aty = w.dual[i] - w.Px[i] - w.q[i];
        out.dual = largest(out.dual, abs(w.dual[i]) * unit);
        out.dual_terms = largest(out.dual_terms, max(abs(w.Px[i]), max(abs(Aty), abs(w.q[i]))) * unit);
        quadratic = fused(w.x[i], w.Px[i], quadratic);
        linear = fused(w.x[i], w.q[i], linear);
    });
    each(S.m, [&](int j) {
        Value unit = size / w.rows[j], Ax = w.primal[j] - w.s[j] + w.b[j];
        out.primal = largest(out.primal, abs(w.primal[j]) * unit);
        out.primal_terms = largest(out.primal_terms, max(abs(Ax), max(abs(w.s[j]), abs(w.b[j]))) * unit);
        support = fused(w.b[j], w.y[j], support);
    });
    out.dual = joined(out.dual, Largest()), out.dual_terms = joined(out.dual_terms, Largest());
    out.primal = joined(out.primal, Largest()), out.primal_terms = joined(out.primal_terms, Largest());
    quadratic = joined(quadratic, Sum()), linear = joined(linear, Sum()), support = joined(support, Sum());
    out.gap = size * size * abs(quadratic + linear + support);
    out.gap_terms = size * size * max(abs(quadratic), max(abs(linear), abs(support)));
    return out;
}

} // namespace cvxfold
