// The splitting iteration alone, to a tolerance, with Anderson's acceleration of type II (Walker and Ni,
// "Anderson acceleration for fixed-point iterations", 2011): what a pass without refinement is.
//
// 1. g = F(u), f = g - u; the last differences of f and g replace the oldest ones.
// 2. u = g - DG gamma, with gamma the least squares solution of DF gamma = f.
// 3. Where |f| has not become less since the last u, that step is taken back: u is the last g, which lowers
//    it, and the memory is dropped.
// 4. Every so often: tolerances; a step of F as a proof that there is no solution; and, more and more
//    rarely, a penalty that balances the residuals.
#pragma once

#include "certificate.hpp"
#include "newton.hpp"
#include "settings.hpp"
#include "splitting.hpp"

namespace cvxfold {

const int MEMORY = 4;
const int BETWEEN_CHECKS = 25, FIRST_CHECKS = 2; // in the first pass, under a factor that may be shared
const int PLAIN_AFTER = 20; // checks; from then on every other stretch is plain, for the sake of proofs
const double RIDGE = 1e-12;

// In memory that the adjoint uses at other times: of the last iterations' f and g the differences.
class Anderson {
  public:
    Anderson(const Shape &S, Workspace &w)
        : m_(S.m), f_(w.u_before), g_(w.turned), last_(splat(1e300)), held_{}, gram_{} {
        for (int k = 0; k < MEMORY; k++) {
            DF_[k] = w.adjoint + static_cast<size_t>(k) * S.m;
            DG_[k] = k ? w.found + static_cast<size_t>(k - 1) * S.m : w.adjoint + size_t(MEMORY) * S.m;
        }
        drop(all());
    }

    // Forgets what lanes have seen.
    CVXFOLD_LONG void drop(Mask mask) {
        for (int k = 0; k < MEMORY; k++)
            each(m_, [&](int j) {
                DF_[k][j] = select(mask, Value{}, DF_[k][j]);
                DG_[k][j] = select(mask, Value{}, DG_[k][j]);
            });
        for (auto &row : gram_)
            for (Value &entry : row)
                entry = select(mask, Value{}, entry);
        held_ = select(mask, Value{}, held_);
        last_ = select(mask, splat(1e300), last_);
    }

    // From `before` and u = F(before) to the next u, for the lanes of `mask`; the others keep theirs.
    CVXFOLD_LONG void advance(const Pack *before, Pack *u, Mask mask) {
        const Value norm = // 1
            sqrt(sum_of(0, m_, [&](int j) { return (u[j] - before[j]) * (u[j] - before[j]); }));
        const Mask back = mask & (norm > last_), on = mask & ~back; // 3
        if (any(back)) {
            fill(u, m_, [&](int j) { return select(back, g_[j], u[j]); });
            drop(back);
        }
        last_ = select(back, splat(1e300), norm);
        const int newest = at_++ % MEMORY;
        const Mask has = held_ > 0.0;
        each(m_, [&](int j) {
            const Value f = u[j] - before[j];
            DF_[newest][j] = select(has, f - f_[j], Value{});
            DG_[newest][j] = select(has, u[j] - g_[j], Value{});
            f_[j] = select(on, f, f_[j]);
            g_[j] = select(on, u[j], g_[j]);
        });
        held_ += select(on, splat(1), Value{});
        Value right[MEMORY], trace{};
        for (int k = 0; k < MEMORY; k++) {
            gram_[newest][k] = gram_[k][newest] = dot(DF_[newest], DF_[k], m_);
            right[k] = dot(DF_[k], f_, m_);
        }
        for (int k = 0; k < MEMORY; k++)
            trace += gram_[k][k];
        Value gamma[MEMORY];
        least_squares(RIDGE * trace + splat(1e-300), right, gamma);
        each(m_, [&](int j) { // 2
            Value next = u[j];
            for (int k = 0; k < MEMORY; k++)
                next -= gamma[k] * DG_[k][j];
            u[j] = select(on, next, u[j]);
        });
    }

  private:
    // (gram + ridge I) gamma = right, by Cholesky's factor.
    void least_squares(Value ridge, Value *right, Value *gamma) const {
        Value L[MEMORY][MEMORY];
        for (int j = 0; j < MEMORY; j++)
            for (int i = j; i < MEMORY; i++) {
                Value sum = gram_[i][j] + (i == j ? ridge : Value{});
                for (int k = 0; k < j; k++)
                    sum -= L[i][k] * L[j][k];
                L[i][j] = i == j ? sqrt(max(sum, ridge)) : sum / L[j][j];
            }
        for (int i = 0; i < MEMORY; i++) {
            for (int k = 0; k < i; k++)
                right[i] -= L[i][k] * right[k];
            right[i] /= L[i][i];
        }
        for (int i = MEMORY - 1; i >= 0; i--) {
            gamma[i] = right[i];
            for (int k = i + 1; k < MEMORY; k++)
                gamma[i] -= L[k][i] * gamma[k];
            gamma[i] /= L[i][i];
        }
    }

    int m_, at_ = 0;
    Pack *f_, *g_, *DF_[MEMORY], *DG_[MEMORY];
    Value last_, held_, gram_[MEMORY][MEMORY];
};

// Up to `checks` stretches of iterations for the lanes of `mask`; returns those that reach the tolerances.
// The penalty moves only where the factor is the pack's own.
template <typename IsSolved, typename Certify, typename TimeLeft>
CVXFOLD_LONG Mask first_order(const Shape &S, const Settings &O, Workspace &w, Progress &progress, Mask mask,
                              Mask warm, int checks, bool own_factor, IsSolved is_solved, Certify certify,
                              TimeLeft time_left) {
    Anderson anderson(S, w);
    Mask done = none();
    if (any(warm)) {
        residual(S, w, progress.rho);
        done = mask & warm & is_solved();
    }
    int total = 0, next_balance = 1;
    for (int check = 1; check <= checks && any(mask & ~done) && time_left(); check++) {
        const int stretch = BETWEEN_CHECKS < O.max_iters - total ? BETWEEN_CHECKS : O.max_iters - total;
        if (stretch <= 0)
            break;
        Mask at_work = mask & ~done;
        const bool plain = !O.accelerated || (check > PLAIN_AFTER && check % 2 == 0);
        for (int step = 0; step < stretch && time_left(); step++) {
            fill(w.du, S.m, [&](int j) { return w.u[j]; });
            fill(w.x_kept, S.n, [&](int i) { return w.x[i]; });
            iterate(S, w, w.splitting, O.relaxation, at_work, 1, time_left);
            if (!plain && step + 1 < stretch)
                anderson.advance(w.du, w.u, at_work);
        }
        total += stretch;
        progress.iterations += select(at_work, splat(stretch), Value{});
        each(S.m, [&](int j) {
            w.u_kept[j] = w.du[j];
            w.lambda[j] = w.u[j];
        });
        iterate(S, w, w.splitting, O.relaxation, at_work, 1, [] { return true; }); // for x(u)
        fill(w.u, S.m, [&](int j) { return w.lambda[j]; });
        residual(S, w, progress.rho); // 4
        const Mask reached = at_work & is_solved();
        done |= reached;
        at_work &= ~reached;
        if (plain)
            mask &= done | ~certify(at_work);
        if (own_factor && !O.penalty_is_fixed && check == next_balance && any(at_work)) {
            next_balance += 1 + next_balance / 4;
            const Mask moved = rebalance(S, w, at_work, progress.rho);
            if (any(moved)) {
                factor_splitting(S, w, w.splitting);
                progress.factorizations += select(moved, splat(1), Value{});
                anderson.drop(moved);
            }
        }
    }
    return done;
}

} // namespace cvxfold
