// The forward pass of a pack of a call's instances: what is loaded, what is done, what is written.
#pragma once

#include "call.hpp"
#include "chosen.hpp"
#include "equilibrate.hpp"
#include "forward.hpp"
#include "layout.hpp"
#include "polish.hpp"
#include "state.hpp"

namespace cvxfold {

// Passes over packs of a call. TimeLeft: tells whether there is time for a further step.
template <typename TimeLeft> struct Solving {
    const Shape &S;
    const Layout &Y;
    const Settings &O;
    const Call &call;
    const States states;
    TimeLeft time_left;

    Solving(const Shape &shape, const Layout &layout, const Settings &settings, const Call &given,
            TimeLeft clock)
        : S(shape), Y(layout), O(settings), call(given), states(shape, given.shared != 0), time_left(clock) {}

    Block block_of(int instance) const { return Block(S, call.shared != 0, states.at(call.state, instance)); }

    // Returns the lanes whose parameters are all finite.
    Mask load_parameters(Workspace &w, const int *instances) const {
        Pack *to = w.parameters, sum{};
        for (int k = 0; k < Y.parameters; k++) {
            const double *from[W];
            for (int lane = 0; lane < W; lane++)
                from[lane] = call.parameters[k] + instances[lane] * call.strides[k];
            fill(to, Y.parameter_sizes[k], [&](int e) {
                Value value;
                for (int lane = 0; lane < W; lane++)
                    value[lane] = from[lane][e];
                return value;
            });
            sum += 0.0 * infinity_norm(to, Y.parameter_sizes[k]); // zero, or NaN
            to += Y.parameter_sizes[k];
        }
        return sum == 0.0;
    }

    // What the batch shares, into w, but for the factor.
    void prepare_common(Workspace &w) const {
        int first_instance[W] = {};
        load_parameters(w, first_instance);
        apply(Y.P, S.nnz_P, w.parameters, w.P);
        apply(Y.A, S.nnz_A, w.parameters, w.A);
        equilibrate(S, w, none());
    }

    // It stands at the state's head.
    void write_head(const Common &common) const {
        double *to = call.state;
        common.each(S, [&](Value &number) { *to++ = number[0]; });
    }

    // Only who begins cold needs it.
    void factor_common(const Common &common, Workspace &w) const {
        set_penalty(S, w, splat(O.penalty));
        factor_splitting(S, w, common.splitting);
    }

    // A row of `start`.
    const double *start_of(int instance) const {
        return call.start + static_cast<size_t>(instance) * call.start_width;
    }

    bool has_start(int instance) const {
        if (!call.start || S.N == 0)
            return false;
        const double first = start_of(instance)[0];
        return first - first == 0;
    }

    // D and E of similar data, into w.columns and w.rows; returns which lanes have them. age: how many passes
    // they have served.
    Mask load_scaling(Workspace &w, const int *instances, Value &age) const {
        Mask known = none();
        const int at = S.N + S.m;
        for (int lane = 0; call.start_width > at && lane < W; lane++) {
            if (!has_start(instances[lane]))
                continue;
            const double *D = start_of(instances[lane]) + at, *E = D + S.n;
            age[lane] = E[S.m] + 1;
            if (!(age[lane] < OLD)) { // NaN where there are none
                age[lane] = 0;
                continue;
            }
            known[lane] = -1;
            each(S.n, [&](int i) { w.columns[i][lane] = D[i]; });
            each(S.m, [&](int j) { w.rows[j][lane] = E[j]; });
        }
        return known;
    }

    // The data of some instances, equilibrated, and their sizes; with `age` by the D and E that come with
    // points to start from, else by their own. Returns the lanes whose parameters are finite.
    Mask load(Workspace &w, const int *instances, Value &size, Value *age = nullptr) const {
        const Mask valid = load_parameters(w, instances);
        if (!call.shared) {
            apply(Y.P, S.nnz_P, w.parameters, w.P);
            apply(Y.A, S.nnz_A, w.parameters, w.A);
            equilibrate(S, w, age ? load_scaling(w, instances, *age) : none());
        }
        apply(Y.q, S.n, w.parameters, w.q);
        apply(Y.b, S.m, w.parameters, w.b);
        size = scale_vectors(S, w);
        return valid;
    }

    // Points to start from, into w.x and w.u; returns which lanes have one.
    Mask load_start(Workspace &w, const int *instances, Value size) const {
        Mask warm = none();
        for (int lane = 0; lane < W; lane++) {
            if (!has_start(instances[lane]))
                continue;
            warm[lane] = -1;
            const double *x = start_of(instances[lane]), *y = x + S.n, *s = y + S.m;
            each(S.n, [&](int i) { w.x[i][lane] = x[i]; });
            each(S.m, [&](int j) {
                w.y[j][lane] = y[j];
                w.u[j][lane] = s[j];
            });
        }
        if (!any(warm))
            return warm;
        fill(w.x, S.n, [&](int i) { return w.x[i] / (w.columns[i] * size); });
        fill(w.u, S.m, [&](int j) { return (w.u[j] * w.rows[j] - w.y[j] / (w.rows[j] * w.R[j])) / size; });
        return warm;
    }

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
        Value size, age{};
        const Mask valid = load(w, instances, size, &age);
        Progress progress = at_first(splat(O.penalty), size);
        progress.age = age;
        set_penalty(S, w, progress.rho);
        const Mask warm = load_start(w, instances, size);
        const Mask done = first_pass(S, O, w, progress, valid, warm, factored, time_left) | ~valid;
        Ended ended = not_yet();
        judge_and_polish(S, O, w, progress, done & valid, newton_ends_at_residual(), ended);
        kept.keep(S, w, progress);
        ended.status = select(valid, ended.status, splat(INVALID));
        points_in_own_units(S, w, size);
        int bad = 0;
        for (int lane = 0; lane < chosen.count; lane++) {
            if (done[lane])
                bad += write(w, progress, ended, lane, instances[lane], false);
            one_by_one([&] {
                open[instances[lane]] = done[lane] ? SETTLED : warm[lane] && O.refine ? MISLED : LEFT;
            });
        }
        w.P = own[0], w.A = own[1], w.columns = own[2], w.rows = own[3];
        return bad;
    }

    // The first pass without a point to start from; the rest as `first`.
    int first_again(Workspace &w, const Chosen &chosen, bool factored, char *open) const {
        const int *instances = chosen.instance;
        Value size;
        load(w, instances, size);
        Progress progress = at_first(splat(O.penalty), size);
        for (int lane = 0; lane < W; lane++)
            load_counts(progress, lane, instances[lane]);
        set_penalty(S, w, progress.rho);
        const Mask done = first_pass(S, O, w, progress, all(), none(), factored, time_left);
        Ended ended = not_yet();
        judge_and_polish(S, O, w, progress, done, newton_ends_at_residual(), ended);
        points_in_own_units(S, w, size);
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

    // What an instance has taken so far.
    void load_counts(Progress &progress, int lane, int instance) const {
        const Block kept = block_of(instance);
        const int from = instance % W;
        progress.iterations[lane] = (*kept.iterations)[from];
        progress.newton_steps[lane] = (*kept.newton_steps)[from];
        progress.factorizations[lane] = (*kept.factorizations)[from];
    }

    // The second pass, from where the first one ended; the splitting's factor is written where w.splitting
    // is, which must not be what the batch shares.
    int second(Workspace &w, const Chosen &chosen) const {
        const int *instances = chosen.instance;
        Value size;
        load(w, instances, size);
        Progress progress = at_first(splat(O.penalty), size);
        for (int lane = 0; lane < W; lane++) {
            const Block kept = block_of(instances[lane]);
            const int from = instances[lane] % W;
            copy_lane(w.x, lane, kept.x, from, S.n);
            copy_lane(w.u, lane, kept.u, from, S.m);
            progress.regularization[lane] = (*kept.regularization)[from];
            load_counts(progress, lane, instances[lane]);
            progress.stuck[lane] = (*kept.stuck)[from];
        }
        reset(S, w.roots);
        set_penalty(S, w, progress.rho);
        Ended ended = not_yet();
        const Mask done = second_pass(S, O, w, progress, all(), ended, time_left);
        judge_and_polish(S, O, w, progress, done, false, ended);
        points_in_own_units(S, w, size);
        int bad = 0;
        for (int lane = 0; lane < chosen.count; lane++) {
            Block kept = block_of(instances[lane]);
            const int to = instances[lane] % W;
            copy_lane(kept.x, to, w.x, lane, S.n);
            copy_lane(kept.u, to, w.u, lane, S.m);
            one_by_one([&] { (*kept.rho)[to] = progress.rho[lane]; });
            bad += write(w, progress, ended, lane, instances[lane], true);
        }
        return bad;
    }

    // Outputs and figures of one instance, from w.own; returns whether it is not solved.
    int write(const Workspace &w, const Progress &progress, const Ended &ended, int lane, int instance,
              bool second) const {
        const int32_t *index = Y.output_index;
        const double *scale = Y.output_scale;
        for (int k = 0; k < Y.outputs; k++) {
            const int count = Y.output_sizes[k];
            double *to = call.outputs[k] + static_cast<size_t>(instance) * count;
            each(count, [&](int e) { to[e] = w.own[index[e]][lane] * scale[e]; });
            index += count;
            scale += count;
        }
        if (call.ends) {
            const int points = S.N + S.m, width = call.shared ? points : points + S.N + 1;
            double *to = call.ends + static_cast<size_t>(instance) * width;
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
