// The forward pass of a pack of a call's instances: what is done, and what is written.
#pragma once

#include "tilting.hpp"

namespace cvxfold {

// Passes over packs of a call. TimeLeft: tells whether there is time for a further step.
template <typename TimeLeft> struct Solving : Tilting {
    TimeLeft time_left;

    Solving(const Shape &shape, const Layout &layout, const Settings &settings, const Call &given,
            TimeLeft clock)
        : Tilting(shape, layout, settings, given), time_left(clock) {}

    // Only who begins cold needs it.
    void factor_common(const Common &common, Workspace &w) const {
        set_penalty(S, w, splat(O.penalty));
        factor_splitting(S, w, common.splitting);
    }

    // The lanes whose P is not what the batch shares: its factor is not theirs.
    Mask by_themselves(Scale scale) const { return call.shared && S.nnz_P > 0 ? scale.cost != 1.0 : none(); }

    // Whether the first pass ends with the residuals at its point; where roots are looked for, projections
    // ahead of the verdict begin from nothing.
    bool newton_ends_at_residual() const { return O.refine && !S.seeks_roots(); }

    // The first pass over neighbours. factored: whether what is shared is, or need not be. Tells in `open`,
    // of the batch, what is left to do; returns how many are settled and not solved.
    int first(Workspace &w, int pack, bool factored, char *open) const {
        const Chosen chosen(call.batch, pack);
        const int *instances = chosen.instance;
        Block kept = block_of(pack * W);
        Pack *const own[] = {w.P, w.A, w.columns, w.rows};
        kept.serve(w);
        Scale scale;
        Value age{};
        const Mask valid = load(w, instances, may_lower_bounds(), scale, &age);
        Progress progress = at_first(splat(O.penalty), scale);
        progress.age = age;
        set_penalty(S, w, progress.rho);
        const Mask warm = load_start(w, instances, scale);
        const Mask apart = valid & by_themselves(scale);
        progress.stuck = select(apart, splat(BY_ITSELF), progress.stuck);
        Mask done = first_pass(S, O, w, progress, valid & ~apart, warm, factored, time_left) | ~valid;
        Ended ended = not_yet();
        judge_and_polish(S, O, w, progress, done & valid, newton_ends_at_residual(), ended);
        done &= ~without_solution(w, done & valid, progress);
        done &= ~asks_for_tilt(w, done & valid, progress);
        kept.keep(S, w, progress);
        ended.status = select(valid, ended.status, splat(INVALID));
        points_in_own_units(S, w, scale.size);
        int bad = 0;
        for (int lane = 0; lane < chosen.count; lane++) {
            if (done[lane])
                bad += write(w, progress, ended, lane, instances[lane], false);
            one_by_one([&] {
                const bool misled = warm[lane] && !apart[lane] && O.refine;
                open[instances[lane]] = done[lane] ? SETTLED : misled ? MISLED : LEFT;
            });
        }
        w.P = own[0], w.A = own[1], w.columns = own[2], w.rows = own[3]; // where they are not shared
        return bad;
    }

    // The first pass without a point to start from; the rest as `first`.
    int first_again(Workspace &w, const Chosen &chosen, bool factored, char *open) const {
        const int *instances = chosen.instance;
        Scale scale;
        load(w, instances, may_lower_bounds(), scale);
        Progress progress = at_first(splat(O.penalty), scale);
        for (int lane = 0; lane < W; lane++)
            load_counts(progress, lane, instances[lane]);
        set_penalty(S, w, progress.rho);
        Mask done = first_pass(S, O, w, progress, all(), none(), factored, time_left);
        Ended ended = not_yet();
        judge_and_polish(S, O, w, progress, done, newton_ends_at_residual(), ended);
        done &= ~without_solution(w, done, progress);
        done &= ~asks_for_tilt(w, done, progress);
        points_in_own_units(S, w, scale.size);
        int bad = 0;
        for (int lane = 0; lane < chosen.count; lane++) {
            const int instance = instances[lane];
            block_of(instance).keep_lane(S, instance % W, w, progress, lane);
            if (done[lane])
                bad += write(w, progress, ended, lane, instance, false);
            one_by_one([&] { open[instance] = done[lane] ? SETTLED : LEFT; });
        }
        return bad;
    }

    // The lanes of `mask` where a far bound that was brought near is active. Their state is worth nothing:
    // they begin anew in the second pass, with bounds as they are given.
    Mask without_solution(const Workspace &w, Mask mask, Progress &progress) const {
        const Mask active = mask & touched(S, w);
        progress.stuck = select(active, splat(BOUND_IS_ACTIVE), progress.stuck);
        return active;
    }

    // The lanes of `mask` whose cones are far apart: they are left to the second pass.
    Mask asks_for_tilt(const Workspace &w, Mask mask, Progress &progress) const {
        const Mask apart = far_apart(w, mask);
        progress.stuck = select(apart, splat(FAR_APART), progress.stuck);
        return apart;
    }

    // The second pass, from where the first one ended; the splitting's factor is written where w.splitting
    // is, which must not be what the batch shares. Where a bound was brought near and it ends without a
    // solution, both passes once more without that.
    int second(Workspace &w, const Chosen &chosen) const {
        const int *instances = chosen.instance;
        Mask open = all(), as_given = none(), fresh = none(); // with bounds as they are given; begin anew
        Mask apart = none(), tried = none(); // cones are far apart; Newton's method and what follows has been
        for (int lane = 0; lane < W; lane++) {
            const double why = (*block_of(instances[lane]).stuck)[instances[lane] % W];
            if (why == BOUND_IS_ACTIVE)
                as_given[lane] = -1;
            if (why == BOUND_IS_ACTIVE || why == BY_ITSELF)
                fresh[lane] = -1;
            if (why == FAR_APART)
                apart[lane] = -1;
        }
        int bad = 0;
        if (any(apart))
            open &= ~by_tilt(w, chosen, apart, bad, time_left);
        bool tilts = O.refine && S.may_tilt(); // before F
        while (any(open)) {
            Scale scale;
            load(w, instances, may_lower_bounds() & ~as_given, scale);
            Progress progress = where_it_ended(w, instances, scale);
            progress.stuck = select(fresh | apart, Value{}, progress.stuck);
            progress.regularization = select(fresh, Value{}, progress.regularization);
            reset(S, w.roots);
            set_penalty(S, w, progress.rho);
            Ended ended = not_yet();
            const Mask lowered = progress.limit < splat(infinite());
            Mask done = none();
            if (any(open & fresh))
                done = first_pass(S, O, w, progress, open & fresh, ~fresh, false, time_left);
            const Mask brief = tilts ? all() : lowered;
            done |= second_pass(S, O, w, progress, open & ~done, tried, brief, ended, time_left);
            judge_and_polish(S, O, w, progress, done, false, ended);
            Mask as_given_next = open & lowered, anew = none();
            as_given_next &= touched(S, w) | (ended.status != splat(SOLVED));
            if (tilts)
                anew = open & ~(done & (ended.status == splat(SOLVED)) & ~far_apart(w, open & done));
            anew |= as_given_next;
            if (any(anew) && !time_left())
                anew = none();
            points_in_own_units(S, w, scale.size);
            for (int lane = 0; lane < chosen.count; lane++) {
                if (!open[lane])
                    continue;
                Block kept = block_of(instances[lane]);
                const int to = instances[lane] % W;
                if (anew[lane]) {
                    if (as_given_next[lane])
                        progress.stuck[lane] = BOUND_IS_ACTIVE;
                    kept.keep_counts(to, progress, lane);
                    continue;
                }
                kept.keep_lane(S, to, w, progress, lane);
                bad += write(w, progress, ended, lane, instances[lane], true);
            }
            open = anew;
            as_given |= as_given_next;
            fresh |= as_given_next;
            tried = open & ~as_given_next;
            if (tilts && any(open & ~apart) && time_left())
                open &= ~by_tilt(w, chosen, open & ~apart, bad, time_left);
            tilts = false;
        }
        return bad;
    }
};

} // namespace cvxfold
