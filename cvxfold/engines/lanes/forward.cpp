#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <vector>

#include "batch.hpp"
#include "kernels/equilibrate.hpp"
#include "pool.hpp"

namespace cvxfold {

// 1. What the batch shares is equilibrated and factored once.
// 2. Packs of neighbours go through the first pass.
// 3. What it leaves open is packed anew, and goes through the second.
class ForwardPass {
  public:
    ForwardPass(Batch &batch, const Settings &settings, const Call &call)
        : batch_(batch), S_(batch.analysis_.shape), Y_(batch.layout_), O_(settings), call_(call),
          shared_(call.shared != 0), start_(std::chrono::steady_clock::now()), open_(call.batch, 0) {}

    int run() {
        std::unique_ptr<MemoryPool::Lease> lease;
        if (shared_) { // 1
            lease = std::make_unique<MemoryPool::Lease>(batch_.commons_);
            prepare_common(lease->memory());
        }
        std::atomic<int> bad(0);
        each_pack(call_.batch, [&](Workspace &w, int block) { bad += first(w, block); }); // 2
        std::vector<int> left;
        for (int instance = 0; instance < call_.batch; instance++)
            if (open_[instance])
                left.push_back(instance);
        each_pack(static_cast<int>(left.size()),
                  [&](Workspace &w, int pack) { bad += second(w, left, pack); }); // 3
        return bad;
    }

  private:
    template <typename Work> void each_pack(int instances, Work work) {
        const int packs = (instances + W - 1) / W;
        std::atomic<int> next(0);
        in_parallel(std::min(call_.threads, packs), [&] {
            MemoryPool &pool = shared_ ? batch_.shared_workspaces_ : batch_.workspaces_;
            Workplace place(S_, Y_.entries, pool, common_.get());
            for (int pack; (pack = next.fetch_add(1)) < packs;)
                work(place.w, pack);
        });
    }

    bool time_left() const {
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
        return O_.seconds < 0 || spent.count() < O_.seconds;
    }

    Block block_of(int instance) const {
        return Block(S_, shared_, batch_.block_at(call_.state, instance / W, shared_));
    }

    // Returns the lanes whose parameters are all finite.
    Mask load_parameters(Workspace &w, const int *instances) const {
        Pack *to = w.parameters, sum{};
        for (int k = 0; k < Y_.parameters; k++) {
            const double *from[W];
            for (int lane = 0; lane < W; lane++)
                from[lane] = call_.parameters[k] + instances[lane] * call_.strides[k];
            for (int e = 0; e < Y_.parameter_sizes[k]; e++, to++) {
                for (int lane = 0; lane < W; lane++)
                    (*to)[lane] = from[lane][e];
                sum += 0.0 * *to; // zero, or NaN from then on
            }
        }
        return sum == 0.0;
    }

    void prepare_common(Pack *memory) {
        common_ = std::make_unique<Common>(S_, memory);
        Workspace w;
        lay_out(S_, Y_.entries, true, w, memory + common_->used);
        common_->serve(w);
        const std::vector<int> first_instance(W, 0);
        load_parameters(w, first_instance.data());
        apply(Y_.P, S_.nnz_P, w.parameters, w.P);
        apply(Y_.A, S_.nnz_A, w.parameters, w.A);
        equilibrate(S_, w);
        set_penalty(S_, w, splat(O_.penalty));
        factor_splitting(S_, w, w.splitting);
        double *head = call_.state;
        common_->each(S_, [&](Pack &number) { *head++ = number[0]; });
    }

    // The data of some instances, equilibrated, and their sizes; returns the lanes whose parameters are
    // finite.
    Mask load(Workspace &w, const int *instances, Pack &size) const {
        const Mask valid = load_parameters(w, instances);
        if (!shared_) {
            apply(Y_.P, S_.nnz_P, w.parameters, w.P);
            apply(Y_.A, S_.nnz_A, w.parameters, w.A);
            equilibrate(S_, w);
        }
        apply(Y_.q, S_.n, w.parameters, w.q);
        apply(Y_.b, S_.m, w.parameters, w.b);
        size = scale_vectors(S_, w);
        return valid;
    }

    // Points to start from, into w.x and w.u; returns which lanes have one.
    Mask load_start(Workspace &w, const int *instances, Pack size) const {
        Mask warm = none();
        for (int lane = 0; call_.start && lane < W; lane++) {
            const double *x = call_.start + static_cast<size_t>(instances[lane]) * (S_.N + S_.m);
            const double *y = x + S_.n, *s = y + S_.m;
            warm[lane] = S_.N > 0 && std::isfinite(x[0]) ? -1 : 0;
            for (int i = 0; i < S_.n; i++)
                w.x[i][lane] = x[i] / (w.columns[i][lane] * size[lane]);
            for (int j = 0; j < S_.m; j++) {
                const double E = w.rows[j][lane];
                w.u[j][lane] = (s[j] * E - y[j] / (E * w.R[j][lane])) / size[lane];
            }
        }
        return warm;
    }

    int first(Workspace &w, int block) {
        int instances[W];
        for (int lane = 0; lane < W; lane++)
            instances[lane] = std::min(block * W + lane, call_.batch - 1);
        Pack size;
        const Mask valid = load(w, instances, size);
        Progress progress = at_first(splat(O_.penalty), size);
        set_penalty(S_, w, progress.rho);
        const Mask warm = load_start(w, instances, size);
        const Mask done = first_pass(S_, O_, w, progress, valid, warm, shared_) | ~valid;
        block_of(block * W).keep(S_, w, progress);
        Ended ended{splat(UNCONVERGED), splat(std::nan("")), {}, {}};
        judge(S_, O_, w, progress, ended);
        ended.status = select(valid, ended.status, splat(INVALID));
        int bad = 0;
        for (int lane = 0; lane < W && block * W + lane < call_.batch; lane++) {
            if (done[lane])
                bad += write(w, progress, ended, lane, instances[lane], false);
            else
                open_[instances[lane]] = 1;
        }
        return bad;
    }

    int second(Workspace &w, const std::vector<int> &left, int pack) {
        int instances[W];
        const int count = std::min<int>(W, static_cast<int>(left.size()) - pack * W);
        for (int lane = 0; lane < W; lane++)
            instances[lane] = left[pack * W + std::min(lane, count - 1)];
        Pack size;
        load(w, instances, size);
        Progress progress = at_first(splat(O_.penalty), size);
        for (int lane = 0; lane < W; lane++) {
            const Block kept = block_of(instances[lane]);
            const int from = instances[lane] % W;
            copy_lane(w.x, lane, kept.x, from, S_.n);
            copy_lane(w.u, lane, kept.u, from, S_.m);
            copy_lane(&progress.regularization, lane, kept.regularization, from, 1);
            copy_lane(&progress.iterations, lane, kept.iterations, from, 1);
            copy_lane(&progress.newton_steps, lane, kept.newton_steps, from, 1);
            copy_lane(&progress.factorizations, lane, kept.factorizations, from, 1);
            copy_lane(&progress.stuck, lane, kept.stuck, from, 1);
        }
        reset(S_, w.roots);
        set_penalty(S_, w, progress.rho);
        // The splitting's factor is written here: what the batch shares must not be.
        const Factor borrowed = w.splitting;
        std::unique_ptr<MemoryPool::Lease> own;
        if (shared_) {
            own = std::make_unique<MemoryPool::Lease>(batch_.commons_);
            w.splitting = Common(S_, own->memory()).splitting;
        }
        Ended ended{splat(UNCONVERGED), splat(std::nan("")), {}, {}};
        second_pass(S_, O_, w, progress, all(), ended, [this] { return time_left(); });
        w.splitting = borrowed;
        judge(S_, O_, w, progress, ended);
        int bad = 0;
        for (int lane = 0; lane < count; lane++) {
            Block kept = block_of(instances[lane]);
            const int to = instances[lane] % W;
            copy_lane(kept.x, to, w.x, lane, S_.n);
            copy_lane(kept.u, to, w.u, lane, S_.m);
            copy_lane(kept.rho, to, &progress.rho, lane, 1);
            bad += write(w, progress, ended, lane, instances[lane], true);
        }
        return bad;
    }

    // An entry of (x, y, s) in own units.
    double entry(const Workspace &w, int index, int lane) const {
        const int row = index - S_.n, slack = row - S_.m;
        if (row < 0)
            return w.x[index][lane] * w.columns[index][lane];
        return slack < 0 ? w.y[row][lane] * w.rows[row][lane] : w.s[slack][lane] / w.rows[slack][lane];
    }

    // Outputs and figures of one instance; returns whether it is not solved.
    int write(const Workspace &w, const Progress &progress, const Ended &ended, int lane, int instance,
              bool second) {
        const double size = progress.size[lane];
        const int32_t *index = Y_.output_index;
        const double *scale = Y_.output_scale;
        for (int k = 0; k < Y_.outputs; k++) {
            const int count = Y_.output_sizes[k];
            double *to = call_.outputs[k] + static_cast<size_t>(instance) * count;
            for (int e = 0; e < count; e++)
                to[e] = entry(w, *index++, lane) * size * *scale++;
        }
        using F = ForwardFigure;
        double *f = call_.figures + static_cast<size_t>(instance) * F::COUNT;
        const Measured &m = ended.measured;
        f[F::STATUS] = ended.status[lane];
        f[F::ITERATIONS] = progress.iterations[lane];
        f[F::NEWTON_STEPS] = progress.newton_steps[lane];
        f[F::FACTORIZATIONS] = progress.factorizations[lane];
        f[F::PRIMAL] = m.primal[lane];
        f[F::DUAL] = m.dual[lane];
        f[F::GAP] = m.gap[lane];
        const double primal = m.primal[lane] / (size + m.primal_terms[lane]);
        const double dual = m.dual[lane] / (size + m.dual_terms[lane]);
        const double gap = m.gap[lane] / (size * size + m.gap_terms[lane]);
        f[F::RELATIVE] =
            std::isfinite(primal + dual + gap) ? std::max(primal, std::max(dual, gap)) : std::nan("");
        f[F::CERTIFICATE] = ended.certificate[lane];
        f[F::PENALTY] = progress.rho[lane];
        f[F::SECOND_PASS] = second;
        return ended.status[lane] != SOLVED;
    }

    Batch &batch_;
    const Shape &S_;
    const Layout &Y_;
    const Settings &O_;
    const Call &call_;
    const bool shared_;
    const std::chrono::steady_clock::time_point start_;
    std::vector<char> open_; // bytes, as threads write to neighbours
    std::unique_ptr<Common> common_;
};

int Batch::forward(const Settings &settings, const Call &call) {
    return ForwardPass(*this, settings, call).run();
}

} // namespace cvxfold
