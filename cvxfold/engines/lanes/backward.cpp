#include "kernels/backward.hpp"

#include <atomic>
#include <memory>

#include "batch.hpp"
#include "pool.hpp"

namespace cvxfold {

class BackwardPass {
  public:
    BackwardPass(Batch &batch, const BackwardCall &call)
        : batch_(batch), S_(batch.analysis_.shape), Y_(batch.layout_), call_(call),
          shared_(call.shared != 0) {}

    int run() {
        std::unique_ptr<MemoryPool::Lease> lease;
        std::unique_ptr<Common> common;
        if (shared_) {
            lease = std::make_unique<MemoryPool::Lease>(batch_.commons_);
            common = batch_.common_of(call_.state, *lease);
        }
        const int blocks = (call_.batch + W - 1) / W;
        std::atomic<int> next(0), suspicious(0);
        in_parallel(std::min(call_.threads, blocks), [&] {
            Workplace place(S_, Y_.entries, shared_ ? batch_.shared_workspaces_ : batch_.workspaces_,
                            common.get());
            for (int block; (block = next.fetch_add(1)) < blocks;)
                suspicious += differentiate(place.w, block);
        });
        return suspicious;
    }

  private:
    // 1. The pack as the forward pass left it. 2. Loss gradients on x and y. 3. The adjoint. 4. What is asked
    // for.
    int differentiate(Workspace &w, int block) {
        double *state = const_cast<double *>(call_.state);
        const Block kept(S_, shared_, batch_.block_at(state, block, shared_)); // 1
        kept.restore(S_, w);
        Progress progress = kept.progress();
        set_penalty(S_, w, progress.rho);
        reset(S_, w.roots);
        decompose(S_, w, w.u);
        Pack *x = w.own, *y = x + S_.n, *y_given = y + S_.m;
        for (int i = 0; i < S_.n; i++)
            x[i] = w.x[i] * w.columns[i] * progress.size;
        for (int j = 0; j < S_.m; j++)
            y[j] = w.y[j] * w.rows[j] * progress.size;
        AdjointVectors a(S_, w);
        load_gradients(w, a.x_bar, y_given, block);                            // 2
        const Screened seen = backward(S_, Y_, w, a, progress, x, y, y_given); // 3
        const DataGradient gradient{a.p, w.y, x, y};
        if (!call_.raw) // 4
            pull_back(S_, Y_, gradient, w.parameters);
        int suspicious = 0;
        for (int lane = 0; lane < W && block * W + lane < call_.batch; lane++) {
            if (call_.raw) {
                store(0, block * W + lane, a.p, S_.n, lane);
                store(1, block * W + lane, w.y, S_.m, lane);
            } else {
                const Pack *from = w.parameters;
                for (int k = 0; k < Y_.parameters; from += Y_.parameter_sizes[k++])
                    if (call_.gradients[k])
                        store(k, block * W + lane, from, Y_.parameter_sizes[k], lane);
            }
            suspicious += write(seen, lane, block * W + lane);
        }
        return suspicious;
    }

    void load_gradients(const Workspace &w, Pack *x_bar, Pack *y_bar, int block) const {
        for (int i = 0; i < S_.n; i++)
            x_bar[i] = Pack{};
        for (int j = 0; j < S_.m; j++)
            y_bar[j] = Pack{};
        const int32_t *index = Y_.output_index;
        const double *scale = Y_.output_scale;
        for (int k = 0; k < Y_.outputs; k++) {
            const int size = Y_.output_sizes[k];
            const double *from = call_.output_gradients[k];
            for (int e = 0; from && e < size; e++) {
                if (index[e] >= S_.N)
                    continue; // s has no gradient of its own
                Pack &to = index[e] < S_.n ? x_bar[index[e]] : y_bar[index[e] - S_.n];
                for (int lane = 0; lane < W; lane++) {
                    const int instance = std::min(block * W + lane, call_.batch - 1);
                    to[lane] += scale[e] * from[static_cast<size_t>(instance) * size + e];
                }
            }
            index += size;
            scale += size;
        }
        for (int i = 0; i < S_.n; i++)
            x_bar[i] *= w.columns[i];
        for (int j = 0; j < S_.m; j++)
            y_bar[j] *= w.rows[j];
    }

    void store(int k, int instance, const Pack *from, int size, int lane) const {
        double *to = call_.gradients[k] + static_cast<size_t>(instance) * size;
        for (int e = 0; e < size; e++)
            to[e] = from[e][lane];
    }

    // The figures of an instance; returns whether somebody should look at it.
    int write(const Screened &seen, int lane, int instance) const {
        using F = BackwardFigure;
        double *f = call_.figures + static_cast<size_t>(instance) * F::COUNT;
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
        // As cvxfold.gradient.verdict would complain of an error.
        const bool accurate = f[F::ERROR] <= std::max(100 * call_.tolerance, ACCURACY) ||
                              f[F::ERROR] * f[F::STRENGTH] <= CANCELS;
        const bool near = f[F::OFFSET] <= call_.negligible || f[F::OFFSET] * f[F::STRENGTH] <= CANCELS;
        const bool regular = f[F::SMALLEST] >= call_.suspect || f[F::MATTERS] == 0;
        const bool plain =
            f[F::RESIDUAL] <= call_.tolerance && f[F::ON_KINK] == 0 && near && regular && accurate;
        return !plain;
    }

    static constexpr double ACCURACY = 1e-6; // as cvxfold.gradient.verdict has it

    Batch &batch_;
    const Shape &S_;
    const Layout &Y_;
    const BackwardCall &call_;
    const bool shared_;
};

int Batch::backward(const BackwardCall &call) { return BackwardPass(*this, call).run(); }

} // namespace cvxfold
