// What a pass leaves of an instance that is done: outputs, points to start from, and figures.
#pragma once

#include "loading.hpp"

namespace cvxfold {

struct Writing : Loading {
    using Loading::Loading;

    static Ended not_yet() {
        Ended ended{};
        ended.status = splat(UNCONVERGED);
        ended.certificate = splat(not_a_number());
        return ended;
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
