// The backward pass of a pack of a call's instances, and their points.
#pragma once

#include "backward.hpp"
#include "call.hpp"
#include "state.hpp"

namespace cvxfold {

const double ACCURACY = 1e-6; // as cvxfold.gradient.screen has it

// x (n), y and s (m) of a pack, into w.own in own units; from what `kept` holds.
inline void restore_points(const Shape &S, Workspace &w, const Block &kept) {
    kept.restore(S, w);
    set_penalty(S, w, *kept.rho);
    reset(S, w.roots);
    decompose(S, w, w.u);
    points_in_own_units(S, w, *kept.size);
}

struct Differentiating {
    const Shape &S;
    const Layout &Y;
    const BackwardCall &call;
    const States states;

    Differentiating(const Shape &shape, const Layout &layout, const BackwardCall &given)
        : S(shape), Y(given.asked ? *given.asked : layout), call(given), states(shape, given.shared != 0) {}

    // 1. The pack as the forward pass left it. 2. Loss gradients on x and y. 3. The adjoint. 4. What is asked
    // for. Returns how many instances somebody should look at, to the first of a group.
    int differentiate(Workspace &w, int pack) const {
        double *state = const_cast<double *>(call.state);
        const Block kept(S, call.shared != 0, states.at(state, pack * W)); // 1
        restore_points(S, w, kept);
        const Progress progress = kept.progress();
        Pack *x = w.own, *y = x + S.n, *y_given = y + S.m;
        AdjointVectors a(S, w);
        load_gradients(w, a.x_bar, y_given, pack);                     // 2
        Screened seen = backward(S, Y, w, a, progress, x, y, y_given); // 3
        if (call.raw) // of what one parameter moves together entries do not tell
            seen.matters = select(seen.tied, min(seen.matters, splat(PERHAPS)), seen.matters);
        const DataGradient gradient{a.p, w.y, x, y};
        if (!call.raw) // 4
            pull_back(S, Y, gradient, w.parameters);
        int suspicious = 0;
        for (int lane = 0; lane < W && pack * W + lane < call.batch; lane++) {
            if (call.raw) {
                store(0, pack * W + lane, a.p, S.n, lane);
                store(1, pack * W + lane, w.y, S.m, lane);
            } else {
                const Pack *from = w.parameters;
                for (int k = 0; k < Y.parameters; from += Y.parameter_sizes[k++])
                    if (call.gradients[k])
                        store(k, pack * W + lane, from, Y.parameter_sizes[k], lane);
            }
            one_by_one([&] { suspicious += write(seen, lane, pack * W + lane); });
        }
        return suspicious;
    }

    void load_gradients(const Workspace &w, Pack *x_bar, Pack *y_bar, int pack) const {
        clear(x_bar, S.n);
        clear(y_bar, S.m);
        const int32_t *index = Y.output_index;
        const double *scale = Y.output_scale;
        for (int k = 0; k < Y.outputs; k++) {
            const int size = Y.output_sizes[k];
            const double *from = call.output_gradients[k];
            one_by_one([&] {
                for (int e = 0; from && e < size; e++) {
                    if (index[e] >= S.N)
                        continue; // s has no gradient of its own
                    Value &to = index[e] < S.n ? x_bar[index[e]] : y_bar[index[e] - S.n];
                    for (int lane = 0; lane < W; lane++) {
                        const int instance = least(pack * W + lane, call.batch - 1);
                        to[lane] += scale[e] * from[static_cast<size_t>(instance) * size + e];
                    }
                }
            });
            index += size;
            scale += size;
        }
        fill(x_bar, S.n, [&](int i) { return x_bar[i] * w.columns[i]; });
        fill(y_bar, S.m, [&](int j) { return y_bar[j] * w.rows[j]; });
        tilt(S, w, y_bar);
    }

    void store(int k, int instance, const Pack *from, int size, int lane) const {
        double *to = call.gradients[k] + static_cast<size_t>(instance) * size;
        each(size, [&](int e) { to[e] = from[e][lane]; });
    }

    // The figures of an instance; returns whether somebody should look at it.
    int write(const Screened &seen, int lane, int instance) const {
        using F = BackwardFigure;
        double *f = call.figures + static_cast<size_t>(instance) * F::COUNT;
        f[F::RESIDUAL] = seen.residual[lane];
        f[F::CORRECTIONS] = seen.corrections[lane];
        f[F::MARGIN] = seen.margin[lane];
        f[F::ON_KINK] = seen.on_kink[lane];
        f[F::SMALLEST] = seen.smallest[lane];
        f[F::MATTERS] = seen.matters[lane];
        f[F::OFFSET] = seen.offset[lane];
        f[F::ERROR] = seen.error[lane];
        f[F::STRENGTH] = seen.strength[lane];
        f[F::GRADIENT] = seen.gradient[lane];
        f[F::FLAT] = seen.flat[lane];
        // As cvxfold.gradient.screen has it.
        const double bound = 100 * call.tolerance > ACCURACY ? 100 * call.tolerance : ACCURACY;
        const bool accurate = f[F::ERROR] <= bound || f[F::ERROR] * f[F::STRENGTH] <= CANCELS;
        const bool near = f[F::OFFSET] <= call.negligible || f[F::OFFSET] * f[F::STRENGTH] <= CANCELS;
        const bool regular = f[F::SMALLEST] >= call.suspect || f[F::MATTERS] == 0;
        const bool plain =
            f[F::RESIDUAL] <= call.tolerance && f[F::ON_KINK] == 0 && near && regular && accurate;
        return !plain;
    }
};

} // namespace cvxfold
