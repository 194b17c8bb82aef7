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
// 3. What it leaves open is packed anew: what had a point to start from goes through the first pass without
// it,
//    so that a bad one does no harm; the rest through the second.
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
        const std::vector<int> misled = those(MISLED);                                    // 3
        if (!misled.empty() && shared_ && !common_is_factored_)
            factor_common();
        each_pack(static_cast<int>(misled.size()),
                  [&](Workspace &w, int pack) { bad += first_again(w, misled, pack); });
        const std::vector<int> left = those(LEFT);
        each_pack(static_cast<int>(left.size()),
                  [&](Workspace &w, int pack) { bad += second(w, left, pack); });
        return bad;
    }

  private:
    enum Open : char { SETTLED, MISLED, LEFT };

    std::vector<int> those(Open which) const {
        std::vector<int> found;
        for (int instance = 0; instance < call_.batch; instance++)
            if (open_[instance] == which)
                found.push_back(instance);
        return found;
    }

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

    // Tells whether there is time for a further step.
    auto clock() const {
        return [this] {
            if (O_.seconds < 0)
                return true;
            const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
            return spent.count() < O_.seconds;
        };
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
        Workspace &w = common_workspace_;
        lay_out(S_, Y_.entries, true, w, memory + common_->used);
        common_->serve(w);
        const std::vector<int> first_instance(W, 0);
        load_parameters(w, first_instance.data());
        apply(Y_.P, S_.nnz_P, w.parameters, w.P);
        apply(Y_.A, S_.nnz_A, w.parameters, w.A);
        equilibrate(S_, w, none());
        for (int instance = 0; !common_is_factored_ && instance < call_.batch; instance++)
            if (!has_start(instance))
                factor_common();
        double *head = call_.state;
        common_->each(S_, [&](Pack &number) { *head++ = number[0]; });
    }

    // Only who begins cold needs it.
    void factor_common() {
        set_penalty(S_, common_workspace_, splat(O_.penalty));
        factor_splitting(S_, common_workspace_, common_->splitting);
        common_is_factored_ = true;
    }

    // A row of `start`.
    const double *start_of(int instance) const {
        return call_.start + static_cast<size_t>(instance) * call_.start_width;
    }

    bool has_start(int instance) const {
        return call_.start && S_.N > 0 && std::isfinite(start_of(instance)[0]);
    }

    // D and E of similar data, into w.columns and w.rows; returns which lanes have them. age: how many passes
    // they have served.
    Mask load_scaling(Workspace &w, const int *instances, Pack &age) const {
        Mask known = none();
        const int at = S_.N + S_.m;
        for (int lane = 0; call_.start_width > at && lane < W; lane++) {
            if (!has_start(instances[lane]))
                continue;
            const double *D = start_of(instances[lane]) + at, *E = D + S_.n;
            age[lane] = E[S_.m] + 1;
            if (!(age[lane] < OLD)) { // NaN where there are none
                age[lane] = 0;
                continue;
            }
            known[lane] = -1;
            for (int i = 0; i < S_.n; i++)
                w.columns[i][lane] = D[i];
            for (int j = 0; j < S_.m; j++)
                w.rows[j][lane] = E[j];
        }
        return known;
    }

    // The data of some instances, equilibrated, and their sizes; with `age` by the D and E that come with
    // points to start from, else by their own. Returns the lanes whose parameters are finite.
    Mask load(Workspace &w, const int *instances, Pack &size, Pack *age = nullptr) const {
        const Mask valid = load_parameters(w, instances);
        if (!shared_) {
            apply(Y_.P, S_.nnz_P, w.parameters, w.P);
            apply(Y_.A, S_.nnz_A, w.parameters, w.A);
            equilibrate(S_, w, age ? load_scaling(w, instances, *age) : none());
        }
        apply(Y_.q, S_.n, w.parameters, w.q);
        apply(Y_.b, S_.m, w.parameters, w.b);
        size = scale_vectors(S_, w);
        return valid;
    }

    // Points to start from, into w.x and w.u; returns which lanes have one.
    Mask load_start(Workspace &w, const int *instances, Pack size) const {
        Mask warm = none();
        for (int lane = 0; lane < W; lane++) {
            if (!has_start(instances[lane]))
                continue;
            warm[lane] = -1;
            const double *x = start_of(instances[lane]), *y = x + S_.n, *s = y + S_.m;
            for (int i = 0; i < S_.n; i++)
                w.x[i][lane] = x[i];
            for (int j = 0; j < S_.m; j++) {
                w.y[j][lane] = y[j];
                w.u[j][lane] = s[j];
            }
        }
        if (!any(warm))
            return warm;
        for (int i = 0; i < S_.n; i++)
            w.x[i] /= w.columns[i] * size;
        for (int j = 0; j < S_.m; j++)
            w.u[j] = (w.u[j] * w.rows[j] - w.y[j] / (w.rows[j] * w.R[j])) / size;
        return warm;
    }

    int first(Workspace &w, int block) {
        int instances[W];
        for (int lane = 0; lane < W; lane++)
            instances[lane] = std::min(block * W + lane, call_.batch - 1);
        Pack size, age{};
        const Mask valid = load(w, instances, size, &age);
        Progress progress = at_first(splat(O_.penalty), size);
        progress.age = age;
        set_penalty(S_, w, progress.rho);
        const Mask warm = load_start(w, instances, size);
        const Mask done = first_pass(S_, O_, w, progress, valid, warm, common_is_factored_, clock()) | ~valid;
        block_of(block * W).keep(S_, w, progress);
        Ended ended{splat(UNCONVERGED), splat(std::nan("")), {}, {}, {}};
        judge(S_, O_, w, progress, ended);
        ended.status = select(valid, ended.status, splat(INVALID));
        into_own_units(w, size);
        int bad = 0;
        for (int lane = 0; lane < W && block * W + lane < call_.batch; lane++) {
            if (done[lane])
                bad += write(w, progress, ended, lane, instances[lane], false);
            else
                open_[instances[lane]] = warm[lane] && O_.refine ? MISLED : LEFT;
        }
        return bad;
    }

    int first_again(Workspace &w, const std::vector<int> &misled, int pack) {
        int instances[W];
        const int count = some_of(misled, pack, instances);
        Pack size;
        load(w, instances, size);
        Progress progress = at_first(splat(O_.penalty), size);
        for (int lane = 0; lane < W; lane++)
            load_counts(progress, lane, instances[lane]);
        set_penalty(S_, w, progress.rho);
        const Mask done = first_pass(S_, O_, w, progress, all(), none(), common_is_factored_, clock());
        Ended ended{splat(UNCONVERGED), splat(std::nan("")), {}, {}, {}};
        judge(S_, O_, w, progress, ended);
        into_own_units(w, size);
        int bad = 0;
        for (int lane = 0; lane < count; lane++) {
            const int instance = instances[lane];
            block_of(instance).keep_lane(S_, instance % W, w, progress, lane);
            if (done[lane])
                bad += write(w, progress, ended, lane, instance, false);
            open_[instance] = done[lane] ? SETTLED : LEFT;
        }
        return bad;
    }

    // The instances of a pack of those left, the last one more than once; returns how many there are.
    static int some_of(const std::vector<int> &left, int pack, int *instances) {
        const int count = std::min<int>(W, static_cast<int>(left.size()) - pack * W);
        for (int lane = 0; lane < W; lane++)
            instances[lane] = left[pack * W + std::min(lane, count - 1)];
        return count;
    }

    // What an instance has taken so far.
    void load_counts(Progress &progress, int lane, int instance) const {
        const Block kept = block_of(instance);
        const int from = instance % W;
        copy_lane(&progress.iterations, lane, kept.iterations, from, 1);
        copy_lane(&progress.newton_steps, lane, kept.newton_steps, from, 1);
        copy_lane(&progress.factorizations, lane, kept.factorizations, from, 1);
    }

    int second(Workspace &w, const std::vector<int> &left, int pack) {
        int instances[W];
        const int count = some_of(left, pack, instances);
        Pack size;
        load(w, instances, size);
        Progress progress = at_first(splat(O_.penalty), size);
        for (int lane = 0; lane < W; lane++) {
            const Block kept = block_of(instances[lane]);
            const int from = instances[lane] % W;
            copy_lane(w.x, lane, kept.x, from, S_.n);
            copy_lane(w.u, lane, kept.u, from, S_.m);
            copy_lane(&progress.regularization, lane, kept.regularization, from, 1);
            load_counts(progress, lane, instances[lane]);
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
        Ended ended{splat(UNCONVERGED), splat(std::nan("")), {}, {}, {}};
        second_pass(S_, O_, w, progress, all(), ended, clock());
        w.splitting = borrowed;
        judge(S_, O_, w, progress, ended);
        into_own_units(w, size);
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

    // x, y and s into w.own.
    void into_own_units(Workspace &w, Pack size) const {
        Pack *x = w.own, *y = x + S_.n, *s = y + S_.m;
        for (int i = 0; i < S_.n; i++)
            x[i] = w.x[i] * w.columns[i] * size;
        for (int j = 0; j < S_.m; j++) {
            y[j] = w.y[j] * w.rows[j] * size;
            s[j] = w.s[j] / w.rows[j] * size;
        }
    }

    // Outputs and figures of one instance, from w.own; returns whether it is not solved.
    int write(const Workspace &w, const Progress &progress, const Ended &ended, int lane, int instance,
              bool second) {
        const int32_t *index = Y_.output_index;
        const double *scale = Y_.output_scale;
        for (int k = 0; k < Y_.outputs; k++) {
            const int count = Y_.output_sizes[k];
            double *to = call_.outputs[k] + static_cast<size_t>(instance) * count;
            for (int e = 0; e < count; e++)
                to[e] = w.own[*index++][lane] * *scale++;
        }
        if (call_.ends) {
            double *to = call_.ends + static_cast<size_t>(instance) * (2 * S_.N + S_.m + 1);
            for (int e = 0; e < S_.N + S_.m; e++)
                *to++ = w.own[e][lane];
            for (int i = 0; i < S_.n; i++)
                *to++ = w.columns[i][lane];
            for (int j = 0; j < S_.m; j++)
                *to++ = w.rows[j][lane];
            *to = progress.age[lane];
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
        f[F::RELATIVE] = std::isfinite(ended.tested[lane]) ? ended.tested[lane] : std::nan("");
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
    Workspace common_workspace_;
    bool common_is_factored_ = false;
};

int Batch::forward(const Settings &settings, const Call &call) {
    return ForwardPass(*this, settings, call).run();
}

} // namespace cvxfold
