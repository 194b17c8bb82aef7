// What a batch shares while it is worked on, and what the forward pass leaves of each pack for the backward
// pass.
#pragma once

#include "cost.hpp"
#include "newton.hpp"
#include "tilt.hpp"

namespace cvxfold {

// Equilibrated P and A, D and E, and the splitting's factor, as packs of equal numbers.
struct Common {
    Pack *P, *A, *columns, *rows;
    Factor splitting;
    size_t used;

    Common(const Shape &S, Pack *memory) {
        Carver c(memory);
        P = c.take(S.nnz_P);
        A = c.take(S.nnz_A);
        columns = c.take(S.n);
        rows = c.take(S.m);
        splitting = c.factor(S);
        used = c.used();
    }

    void serve(Workspace &w) const {
        w.common = {P, A, columns, rows};
        cvxfold::serve(w.common, w);
        w.splitting = splitting;
    }

    // The numbers themselves, one after the other, but for the factor.
    template <typename Visit> void each(const Shape &S, Visit visit) const {
        Pack *const parts[] = {P, A, columns, rows};
        const int counts[] = {S.nnz_P, S.nnz_A, S.n, S.m};
        for (int part = 0; part < 4; part++)
            for (int i = 0; i < counts[part]; i++)
                visit(parts[part][i]);
    }
};

CVXFOLD_LONG void copy(Pack *to, const Pack *from, int count) {
    fill(to, count, [&](int i) { return from[i]; });
}

// One lane of some packs into a lane of others.
inline void copy_lane(Pack *to, int to_lane, const Pack *from, int from_lane, int count) {
    each(count, [&](int i) { to[i][to_lane] = from[i][from_lane]; });
}

// A pack of instances after the forward pass. P and A are null where the batch shares them, and D and E are
// what they would be without that; b is not brought near.
struct Block {
    Pack *P, *A, *columns, *rows, *q, *b, *x, *u;
    Pack *rho, *size, *limit, *cost, *regularization, *iterations, *newton_steps, *factorizations, *stuck;
    Pack *tilt;      // (S.tilt_packs)
    Matrices tilted; // where the batch shares P and A, the matrices of instances that are tilted
    size_t used;

    Block(const Shape &S, bool shared, Pack *memory) {
        Carver c(memory);
        P = shared ? nullptr : c.take(S.nnz_P);
        A = shared ? nullptr : c.take(S.nnz_A);
        columns = c.take(S.n);
        rows = c.take(S.m);
        q = c.take(S.n);
        b = c.take(S.m);
        x = c.take(S.n);
        u = c.take(S.m);
        Pack **const numbers[] = {&rho,        &size,         &limit,          &cost, &regularization,
                                  &iterations, &newton_steps, &factorizations, &stuck};
        for (Pack **number : numbers)
            *number = c.take(1);
        tilt = c.take(S.tilt_packs());
        tilted = shared && S.may_tilt() ? c.matrices(S) : Matrices{P, A, columns, rows};
        used = c.used();
    }

    Progress progress() const {
        return {*rho,   *size,   *regularization, *iterations, *newton_steps, *factorizations,
                *stuck, Value{}, Value{},         *limit,      *cost};
    }

    // Has w work on P, A, D and E in their place here, unless the batch shares P and A.
    void serve(Workspace &w) const {
        if (P) {
            w.P = P;
            w.A = A;
            w.columns = columns;
            w.rows = rows;
        }
    }

    // What is left of a pass of a workspace that this serves.
    void keep(const Shape &S, const Workspace &w, const Progress &progress) {
        if (!P) {
            copy(columns, w.columns, S.n);
            copy(rows, w.rows, S.m);
        }
        copy(q, w.q, S.n);
        fill(b, S.m, [&](int j) { return w.b[j] + w.beyond[j]; });
        copy(x, w.x, S.n);
        copy(u, w.u, S.m);
        copy(tilt, w.tilt, S.tilt_packs());
        one_by_one([&] {
            *rho = progress.rho;
            *size = progress.size;
            *limit = progress.limit;
            *cost = progress.cost;
            *regularization = progress.regularization;
            *iterations = progress.iterations;
            *newton_steps = progress.newton_steps;
            *factorizations = progress.factorizations;
            *stuck = progress.stuck;
        });
    }

    // One lane of a workspace into a lane of the block.
    void keep_lane(const Shape &S, int to, const Workspace &w, const Progress &progress, int from) {
        if (P) {
            copy_lane(P, to, w.P, from, S.nnz_P);
            copy_lane(A, to, w.A, from, S.nnz_A);
        }
        copy_lane(columns, to, w.columns, from, S.n);
        copy_lane(rows, to, w.rows, from, S.m);
        keep_point(S, to, w, progress, from);
        keep_counts(to, progress, from);
    }

    void keep_counts(int to, const Progress &progress, int from) {
        one_by_one([&] {
            (*regularization)[to] = progress.regularization[from];
            (*iterations)[to] = progress.iterations[from];
            (*newton_steps)[to] = progress.newton_steps[from];
            (*factorizations)[to] = progress.factorizations[from];
            (*stuck)[to] = progress.stuck[from];
        });
    }

    // The same without P, A, D and E, and without counts.
    void keep_point(const Shape &S, int to, const Workspace &w, const Progress &progress, int from) {
        copy_lane(q, to, w.q, from, S.n);
        each(S.m, [&](int j) { b[j][to] = w.b[j][from] + w.beyond[j][from]; });
        copy_lane(x, to, w.x, from, S.n);
        copy_lane(u, to, w.u, from, S.m);
        copy_lane(tilt, to, w.tilt, from, S.tilt_packs());
        one_by_one([&] {
            (*rho)[to] = progress.rho[from];
            (*size)[to] = progress.size[from];
            (*limit)[to] = progress.limit[from];
            (*cost)[to] = progress.cost[from];
        });
    }

    // The matrices of a lane that is tilted.
    void keep_tilted(const Shape &S, int to, const Workspace &w, int from) {
        copy_lane(tilted.P, to, w.P, from, S.nnz_P);
        copy_lane(tilted.A, to, w.A, from, S.nnz_A);
        copy_lane(tilted.columns, to, w.columns, from, S.n);
        copy_lane(tilted.rows, to, w.rows, from, S.m);
        copy_lane(columns, to, w.columns, from, S.n);
        copy_lane(rows, to, w.rows, from, S.m);
    }

    // Has w work on the matrices of tilted lanes, and on what the batch shares in others.
    void serve_tilted(const Shape &S, Workspace &w) const {
        const Mask which = cvxfold::tilted(S, w);
        const auto put = [&](Pack *own, const Pack *given, int count) {
            fill(own, count, [&](int i) { return select(which, own[i], given[i]); });
        };
        put(tilted.P, w.P, S.nnz_P);
        put(tilted.A, w.A, S.nnz_A);
        put(tilted.columns, w.columns, S.n);
        put(tilted.rows, w.rows, S.m);
        cvxfold::serve(tilted, w);
    }

    void restore(const Shape &S, Workspace &w) const {
        serve(w);
        copy(w.tilt, tilt, S.tilt_packs());
        if (!P)
            cvxfold::serve(w.common, w);
        if (!P && any(*cost != 1.0))
            scale_cost(S, w, *cost);
        if (!P && any(cvxfold::tilted(S, w)))
            serve_tilted(S, w);
        copy(w.q, q, S.n);
        copy(w.b, b, S.m);
        bring_near(S, w, *limit);
        copy(w.x, x, S.n);
        copy(w.u, u, S.m);
    }
};

// x (n), y and s (m) in own units, from w.x, w.y and w.s into w.own.
inline void points_in_own_units(const Shape &S, Workspace &w, Value size) {
    Pack *x = w.own, *y = x + S.n, *s = y + S.m;
    fill(x, S.n, [&](int i) { return w.x[i] * w.columns[i] * size; });
    fill(y, S.m, [&](int j) { return w.y[j] * w.rows[j] * size; });
    fill(s, S.m, [&](int j) { return (w.s[j] + w.beyond[j]) / w.rows[j] * size; });
    tilt_dual_back(S, w, y);
    tilt_back(S, w, s);
}

// A state: a head of numbers that the batch shares, then a block for each LANES instances.
struct States {
    size_t head, block; // in doubles, a multiple of LANES; in packs

    States(const Shape &S, bool shared) {
        const size_t numbers = shared ? S.nnz_P + S.nnz_A + S.N : 0;
        head = (numbers + LANES - 1) / LANES * LANES;
        block = Block(S, shared, nullptr).used;
    }

    // Of `instance`, and those whose numbers a pack holds together with its.
    Pack *at(double *state, int instance) const {
        const size_t before = head + static_cast<size_t>(instance / LANES) * block * LANES;
        return reinterpret_cast<Pack *>(state + before + instance % LANES / W * W);
    }
};

} // namespace cvxfold
