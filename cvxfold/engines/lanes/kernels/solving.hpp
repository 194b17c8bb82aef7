// The forward pass of a pack of a call's instances: what is done, and what is written.
#pragma once

#include "chosen.hpp"
#include "homogeneous.hpp"
#include "loading.hpp"
#include "polish.hpp"

namespace cvxfold {

const int TILTS = 3;      // rounds of the interior-point method and of what it tilts
const double TOLD = 1e-4; // of the largest of the terms that are added up

// Passes over packs of a call. TimeLeft: tells whether there is time for a further step.
template <typename TimeLeft> struct Solving : Loading {
    TimeLeft time_left;

    Solving(const Shape &shape, const Layout &layout, const Settings &settings, const Call &given,
            TimeLeft clock)
        : Loading(shape, layout, settings, given), time_left(clock) {}

    // Only who begins cold needs it.
    void factor_common(const Common &common, Workspace &w) const {
        set_penalty(S, w, splat(O.penalty));
        factor_splitting(S, w, common.splitting);
    }

    // The lanes whose P is not what the batch shares: its factor is not theirs.
    Mask by_themselves(Scale scale) const { return call.shared && S.nnz_P > 0 ? scale.cost != 1.0 : none(); }

    static Ended not_yet() {
        Ended ended{};
        ended.status = splat(UNCONVERGED);
        ended.certificate = splat(not_a_number());
        return ended;
    }

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

    // The second pass, from where the first one ended; the splitting's factor is written where w.splitting
    // is, which must not be what the batch shares. Where a bound was brought near and it ends without a
    // solution, both passes once more without that.
    int second(Workspace &w, const Chosen &chosen) const {
        const int *instances = chosen.instance;
        Mask open = all(), as_given = none(), fresh = none(); // with bounds as they are given; begin anew
        for (int lane = 0; lane < W; lane++) {
            const double why = (*block_of(instances[lane]).stuck)[instances[lane] % W];
            if (why == BOUND_IS_ACTIVE)
                as_given[lane] = -1;
            if (why == BOUND_IS_ACTIVE || why == BY_ITSELF)
                fresh[lane] = -1;
        }
        int bad = 0;
        bool newton_alone =
            O.refine && homogeneous_serves(S); // then the interior-point method, then the rest
        while (any(open)) {
            Scale scale;
            load(w, instances, may_lower_bounds() & ~as_given, scale);
            Progress progress = where_it_ended(w, instances, scale);
            progress.stuck = select(fresh, Value{}, progress.stuck);
            progress.regularization = select(fresh, Value{}, progress.regularization);
            reset(S, w.roots);
            set_penalty(S, w, progress.rho);
            Ended ended = not_yet();
            const Mask lowered = progress.limit < splat(infinite());
            Mask done = none();
            if (any(open & fresh))
                done = first_pass(S, O, w, progress, open & fresh, ~fresh, false, time_left);
            if (newton_alone)
                done |=
                    newton(S, w, progress, open & ~done & (progress.stuck == 0.0), NEWTON_STEPS, time_left);
            else
                done |= second_pass(S, O, w, progress, open & ~done, lowered, ended, time_left);
            judge_and_polish(S, O, w, progress, done, false, ended);
            Mask as_given_next = open & lowered, anew = none();
            as_given_next &= touched(S, w) | (ended.status != splat(SOLVED));
            if (newton_alone)
                anew = open & ~(done & (ended.status == splat(SOLVED)));
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
            if (newton_alone && any(open) && time_left())
                open &= ~by_tilt(w, chosen, open, bad);
            newton_alone = false;
        }
        return bad;
    }

    // Whether the sums themselves say that a point is a solution: where what is left is rounding of terms
    // that cancel, next to which q or b are nothing, a direction along which there is none looks the same.
    Mask is_told(const Workspace &w) const {
        Value left{}, terms{};
        each(S.n, [&](int i) {
            const Value Aty = w.dual[i] - w.Px[i] - w.q[i];
            left = largest(left, abs(w.dual[i]));
            terms = max(terms, max(abs(w.Px[i]), max(abs(Aty), abs(w.q[i]))));
        });
        return joined(left, Largest()) <= TOLD * joined(terms, Larger());
    }

    // What the interior-point method solves, whose point says how to tilt exponential cones, and then
    // Newton's method on these. Returns the lanes that are done, and counts in `bad` those that are not
    // solved.
    Mask by_tilt(Workspace &w, const Chosen &chosen, Mask asked, int &bad) const {
        const int *instances = chosen.instance;
        const Matrices given = {w.P, w.A, w.columns, w.rows};
        const Pack *x = w.own, *y = x + S.n, *s = y + S.m;
        Scale scale;
        load(w, instances, none(), scale);
        Progress progress = where_it_ended(w, instances, scale);
        set_penalty(S, w, progress.rho);
        reset(S, w.roots);
        Mask done = ~asked;
        for (int round = 0; round < TILTS && any(~done) && time_left(); round++) {
            const Mask open = ~done;
            const Mask found = homogeneous_interior_point(S, w, progress, open, hardly_any(), time_left);
            points_in_own_units(S, w, scale.size);
            load_tilted(w, instances, s, y, open, scale);
            progress.size = scale.size, progress.limit = scale.limit, progress.cost = scale.cost;
            progress.stuck = progress.regularization = Value{};
            set_penalty(S, w, progress.rho);
            reset(S, w.roots);
            fill(w.x, S.n, [&](int i) { return x[i] / (w.columns[i] * scale.size); });
            fill(w.s, S.m, [&](int j) { return s[j] * w.rows[j] / scale.size; });
            fill(w.y, S.m, [&](int j) { return y[j] / (w.rows[j] * scale.size); });
            tilt(S, w, w.s);
            tilt_dual(S, w, w.y);
            fill(w.u, S.m, [&](int j) { return w.s[j] - w.y[j] / w.R[j]; });
            Mask now = newton(S, w, progress, found, NEWTON_STEPS, time_left, hardly_any());
            Ended ended = not_yet();
            judge_and_polish(S, O, w, progress, now, false, ended);
            now &= (ended.status == splat(SOLVED)) & is_told(w);
            progress.age = splat(not_a_number()); // D and E are of no use to others
            points_in_own_units(S, w, scale.size);
            for (int lane = 0; lane < chosen.count; lane++)
                if (now[lane]) {
                    Block kept = block_of(instances[lane]);
                    kept.keep_point(S, instances[lane] % W, w, progress, lane);
                    kept.keep_tilted(S, instances[lane] % W, w, lane);
                    bad += write(w, progress, ended, lane, instances[lane], true);
                }
            done |= now;
        }
        serve(given, w);
        return done & asked;
    }

    // Outputs and figures of one instance, from w.own; returns whether it is not solved.
    int write(const Workspace &w, const Progress &progress, const Ended &ended, int lane, int instance,
              bool second) const {
        const int32_t *index = Y.output_index;
        const double *scale = Y.output_scale, *low = Y.output_least, *high = Y.output_most;
        for (int k = 0; k < Y.outputs; k++) {
            const int count = Y.output_sizes[k];
            double *to = call.outputs[k] + static_cast<size_t>(instance) * count;
            each(count, [&](int e) {
                const double value = w.own[index[e]][lane] * scale[e]; // NaN stays
                to[e] = value < low[e] ? low[e] : value > high[e] ? high[e] : value;
            });
            index += count, scale += count, low += count, high += count;
        }
        if (call.ends && (!call.places || ended.status[lane] == SOLVED)) {
            const int points = S.N + S.m, width = call.shared ? points : points + S.N + 1;
            double *to = call.ends + place_of(instance) * width;
            each(points, [&](int e) { to[e] = w.own[e][lane]; });
            if (!call.shared) { // which is equilibrated once, for all
                double *D = to + points, *E = D + S.n;
                each(S.n, [&](int i) { D[i] = w.columns[i][lane]; });
                each(S.m, [&](int j) { E[j] = w.rows[j][lane]; });
                one_by_one([&] { E[S.m] = progress.age[lane]; });
            }
        }
        one_by_one([&] { write_figures(progress, ended, lane, instance, second); });
        return ended.status[lane] != SOLVED;
    }

    void write_figures(const Progress &progress, const Ended &ended, int lane, int instance,
                       bool second) const {
        using F = ForwardFigure;
        double *f = call.figures + static_cast<size_t>(instance) * F::COUNT;
        const Measured &m = ended.measured;
        const double tested = ended.tested.number[lane];
        f[F::STATUS] = ended.status[lane];
        f[F::ITERATIONS] = progress.iterations[lane];
        f[F::NEWTON_STEPS] = progress.newton_steps[lane];
        f[F::FACTORIZATIONS] = progress.factorizations[lane];
        f[F::PRIMAL] = m.primal[lane];
        f[F::DUAL] = m.dual[lane];
        f[F::GAP] = m.gap[lane];
        f[F::RELATIVE] = tested - tested == 0 ? tested : not_a_number();
        f[F::CERTIFICATE] = ended.certificate[lane];
        f[F::PENALTY] = progress.rho[lane];
        f[F::SECOND_PASS] = second;
    }
};

} // namespace cvxfold
