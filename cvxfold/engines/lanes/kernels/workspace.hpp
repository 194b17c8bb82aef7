// The memory of one pack of instances at work.
#pragma once

#include "factor.hpp"
#include "pack.hpp"
#include "shape.hpp"

namespace cvxfold {

// P, A, D and E.
struct Matrices {
    Pack *P, *A, *columns, *rows;
};

// Data and the point are in equilibrated units: D P D, D q/size, E A D, E b/size, x/size, u/size.
struct Workspace {
    Pack *P, *A, *q, *b, *columns, *rows; // (nnz_P), (nnz_A), (n), (m); D (n), E (m)
    Pack *x, *u, *s, *y, *R;              // the point, Pi_K(u), R (s - u), the penalty
    Pack *dual, *primal, *Px;             // residuals Px + q + A'y (n) and Ax + s - b (m)
    Pack *lambda, *E, *frame, *rotated_A; // D = Q lambda Q', (1 - lambda)^1/2, Q, Q'A
    Pack *aside;                          // (2 m): rows of semidefinite cones
    Pack *K, *target, *right;             // (nnz_K), (PANEL N), (PANEL + 1, N) and apart_size, (3 N)
    Pack *dx, *du, *turned;               // steps; (m) in the frame
    Pack *x_before, *u_before, *x_kept, *u_kept;
    Pack *roots;      // (S.roots)
    Pack *scratch;    // (3 N)
    Pack *adjoint;    // (5 N)
    Pack *own;        // (2 N): x, y and y_bar, or x, y and s, in the program's own units
    Pack *found;      // (3 N): an adjoint, a state and distances to kinks, while others are tried
    Pack *step;       // (N + m): what is left of Newton's method, in x, y and u
    Pack *parameters; // (entries)
    Pack *reach;      // (m): distances to kinks that cannot be told from zero
    Pack *beyond;     // (m): what is taken off of b, where far bounds are brought near
    Pack *lambda_beside, *frame_beside; // (m), (S.frame): D beside the state
    Pack *tilt;                         // (S.tilt_packs): how cones are tilted (tilt.hpp)
    Matrices common, apart; // what the batch shares; what instances have instead, null where nothing is
    Factor newton, splitting;
};

inline void serve(const Matrices &m, Workspace &w) {
    w.P = m.P;
    w.A = m.A;
    w.columns = m.columns;
    w.rows = m.rows;
}

// Lays arrays out one after the other; with no memory it only counts.
class Carver {
  public:
    explicit Carver(Pack *memory) : memory_(memory) {}

    Pack *take(size_t count) {
        Pack *start = memory_ ? memory_ + used_ : nullptr;
        used_ += count;
        return start;
    }

    Factor factor(const Shape &S) {
        Factor f;
        f.L = take(S.nnz_L);
        f.D = take(S.N);
        f.inverse_D = take(S.N);
        f.idle = take(S.N);
        return f;
    }

    Matrices matrices(const Shape &S) {
        Matrices m;
        m.P = take(S.nnz_P);
        m.A = take(S.nnz_A);
        m.columns = take(S.n);
        m.rows = take(S.m);
        return m;
    }

    size_t used() const { return used_; }

  private:
    Pack *memory_;
    size_t used_ = 0;
};

// Args: entries: of all parameters together. shared: whether P, A, D, E and the splitting's factor are
// elsewhere. Returns the packs that it takes.
inline size_t lay_out(const Shape &S, size_t entries, bool shared, Workspace &w, Pack *memory) {
    Carver c(memory);
    const size_t n = S.n, m = S.m, N = S.N;
    w.apart = c.matrices(S);
    if (!shared) {
        serve(w.apart, w);
        w.apart = {};
    }
    w.q = c.take(n);
    w.b = c.take(m);
    w.x = c.take(n);
    w.u = c.take(m);
    w.s = c.take(m);
    w.y = c.take(m);
    w.R = c.take(m);
    w.dual = c.take(n);
    w.primal = c.take(m);
    w.Px = c.take(n);
    w.lambda = c.take(m);
    w.E = c.take(m);
    w.frame = c.take(S.frame);
    w.rotated_A = S.curved() ? c.take(S.nnz_A) : nullptr;
    w.aside = c.take(S.semidefinite ? 2 * m : 0);
    w.K = c.take(S.nnz_K);
    w.target = c.take((2 * PANEL + 1) * N + (apart_size(S) + W - 1) / W);
    w.right = c.take(3 * N);
    w.dx = c.take(n);
    w.du = c.take(m);
    w.turned = c.take(m);
    w.x_before = c.take(n);
    w.u_before = c.take(m);
    w.x_kept = c.take(n);
    w.u_kept = c.take(m);
    w.roots = c.take(S.roots);
    w.scratch = c.take(3 * N);
    w.adjoint = c.take(5 * N);
    w.own = c.take(2 * N);
    w.found = c.take(3 * N);
    w.step = c.take(N + m);
    w.parameters = c.take(entries);
    w.reach = c.take(m);
    w.beyond = c.take(m);
    w.lambda_beside = c.take(S.curved() ? m : 0);
    w.frame_beside = c.take(S.frame);
    w.tilt = c.take(S.tilt_packs());
    w.newton = c.factor(S);
    if (!shared)
        w.splitting = c.factor(S);
    return c.used();
}

} // namespace cvxfold
