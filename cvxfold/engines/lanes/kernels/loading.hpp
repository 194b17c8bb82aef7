// What a pack of a call's instances begins with: data, points to start from, and where an earlier pass ended.
#pragma once

#include "call.hpp"
#include "cost.hpp"
#include "forward.hpp"
#include "layout.hpp"
#include "state.hpp"

namespace cvxfold {

struct Loading {
    const Shape &S;
    const Layout &Y;
    const Settings &O;
    const Call &call;
    const States states;

    Loading(const Shape &shape, const Layout &layout, const Settings &settings, const Call &given)
        : S(shape), Y(layout), O(settings), call(given), states(shape, given.shared != 0) {}

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
        clear_tilt(S, w);
        equilibrate(S, w, none());
    }

    // It stands at the state's head.
    void write_head(const Common &common) const {
        double *to = call.state;
        common.each(S, [&](Value &number) { *to++ = number[0]; });
    }

    // The row of `start` and of `ends` that is an instance's.
    size_t place_of(int instance) const {
        return static_cast<size_t>(call.places ? call.places[instance] : instance);
    }

    const double *start_of(int instance) const { return call.start + place_of(instance) * call.start_width; }

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

    // F alone would go through all of its iterations twice.
    Mask may_lower_bounds() const { return O.refine ? all() : none(); }

    // The data of some instances, equilibrated, and their sizes, with bounds that are far brought near in the
    // lanes of `nearer`; with `age` by the D and E that come with points to start from, else by their own.
    // Returns the lanes whose parameters are finite.
    Mask load(Workspace &w, const int *instances, Mask nearer, Scale &scale, Value *age = nullptr) const {
        const Mask valid = load_parameters(w, instances);
        clear_tilt(S, w);
        if (!call.shared) {
            apply(Y.P, S.nnz_P, w.parameters, w.P);
            apply(Y.A, S.nnz_A, w.parameters, w.A);
            equilibrate(S, w, age ? load_scaling(w, instances, *age) : none());
        }
        if (call.shared)
            serve(w.common, w);
        apply(Y.q, S.n, w.parameters, w.q);
        apply(Y.b, S.m, w.parameters, w.b);
        scale = scale_vectors(S, w, nearer);
        return valid;
    }

    // Points to start from, into w.x and w.u; returns which lanes have one.
    Mask load_start(Workspace &w, const int *instances, Scale scale) const {
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
        const Value size = scale.size;
        fill(w.x, S.n, [&](int i) { return w.x[i] / (w.columns[i] * size); });
        fill(w.u, S.m, [&](int j) { return (w.u[j] * w.rows[j] - w.y[j] / (w.rows[j] * w.R[j])) / size; });
        fill(w.u, S.m, [&](int j) { return select(w.u[j] > w.beyond[j], w.u[j] - w.beyond[j], w.u[j]); });
        return warm;
    }

    // What an instance has taken so far.
    void load_counts(Progress &progress, int lane, int instance) const {
        const Block kept = block_of(instance);
        const int from = instance % W;
        progress.iterations[lane] = (*kept.iterations)[from];
        progress.newton_steps[lane] = (*kept.newton_steps)[from];
        progress.factorizations[lane] = (*kept.factorizations)[from];
    }

    // x and u as the first pass left them, into w, and what it took.
    Progress where_it_ended(Workspace &w, const int *instances, Scale scale) const {
        Progress progress = at_first(splat(O.penalty), scale);
        for (int lane = 0; lane < W; lane++) {
            const Block kept = block_of(instances[lane]);
            const int from = instances[lane] % W;
            copy_lane(w.x, lane, kept.x, from, S.n);
            copy_lane(w.u, lane, kept.u, from, S.m);
            progress.regularization[lane] = (*kept.regularization)[from];
            load_counts(progress, lane, instances[lane]);
            progress.stuck[lane] = (*kept.stuck)[from];
        }
        return progress;
    }
};

} // namespace cvxfold
