#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "batch.hpp"
#include "pool.hpp"

namespace cvxfold {

// Tells whether there is time for a further step.
struct Clock {
    std::chrono::steady_clock::time_point start;
    double seconds;

    bool operator()() const {
        if (seconds < 0)
            return true;
        const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
        return spent.count() < seconds;
    }
};

// 1. What the batch shares is equilibrated and factored once; what all calls share, by the first of them.
// 2. Packs of neighbours go through the first pass.
// 3. What it leaves open is packed anew: what had a point to start from goes through the first pass without
// it,
//    so that a bad one does no harm; the rest through the second.
class ForwardPass {
  public:
    ForwardPass(Batch &batch, const Settings &settings, const Call &call)
        : batch_(batch), S_(batch.analysis_.shape), Y_(batch.layout_), call_(call), shared_(call.shared != 0),
          solving_(S_, Y_, settings, call, Clock{std::chrono::steady_clock::now(), settings.seconds}),
          open_(call.batch, SETTLED) {}

    int run() {
        std::unique_ptr<MemoryPool::Lease> lease;
        if (shared_ && batch_.is_constant()) // 1
            take_constant(lease);
        else if (shared_)
            prepare_common(lease);
        std::atomic<int> bad(0);
        each_pack(call_.batch, [&](Workspace &w, int pack) { // 2
            bad += solving_.first(w, pack, common_is_factored_, open_.data());
        });
        const std::vector<int> misled = those(MISLED); // 3
        if (!misled.empty() && shared_ && !common_is_factored_)
            factor_common();
        each_pack(count(misled), [&](Workspace &w, int pack) {
            const Chosen chosen(misled.data(), count(misled), pack);
            bad += solving_.first_again(w, chosen, common_is_factored_, open_.data());
        });
        const std::vector<int> left = those(LEFT);
        each_pack(count(left),
                  [&](Workspace &w, int pack) { bad += second(w, Chosen(left.data(), count(left), pack)); });
        return bad;
    }

  private:
    static int count(const std::vector<int> &list) { return static_cast<int>(list.size()); }

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

    // Memory for what is shared and for the work on it.
    void lay_out_common(std::unique_ptr<MemoryPool::Lease> &lease) {
        lease = std::make_unique<MemoryPool::Lease>(batch_.commons_);
        Pack *memory = lease->memory();
        common_ = std::make_unique<Common>(S_, memory);
        lay_out(S_, Y_.entries, true, common_workspace_, memory + common_->used);
        common_->serve(common_workspace_);
    }

    void prepare_common(std::unique_ptr<MemoryPool::Lease> &lease) {
        lay_out_common(lease);
        solving_.prepare_common(common_workspace_);
        solving_.write_head(*common_);
        factor_if_needed();
    }

    void factor_if_needed() {
        for (int instance = 0; !common_is_factored_ && instance < call_.batch; instance++)
            if (!solving_.has_start(instance))
                factor_common();
    }

    // What no parameter reaches; under another penalty than the first call's with a factor of its own.
    void take_constant(std::unique_ptr<MemoryPool::Lease> &lease) {
        ForAllCalls &constant = batch_.constant_;
        std::call_once(constant.made, [&] {
            lay_out_common(constant.lease);
            solving_.prepare_common(common_workspace_);
            factor_common();
            constant.penalty = solving_.O.penalty;
            constant.common = std::move(common_);
        });
        common_is_factored_ = constant.penalty == solving_.O.penalty;
        if (common_is_factored_) {
            common_ = std::make_unique<Common>(*constant.common);
        } else {
            lay_out_common(lease);
            const Factor own = common_->splitting;
            *common_ = *constant.common;
            common_->splitting = own;
            common_->serve(common_workspace_);
        }
        solving_.write_head(*common_);
        factor_if_needed();
    }

    void factor_common() {
        solving_.factor_common(*common_, common_workspace_);
        common_is_factored_ = true;
    }

    int second(Workspace &w, const Chosen &chosen) {
        const Factor borrowed = w.splitting;
        std::unique_ptr<MemoryPool::Lease> own;
        if (shared_) {
            own = std::make_unique<MemoryPool::Lease>(batch_.commons_);
            w.splitting = Common(S_, own->memory()).splitting;
        }
        const int bad = solving_.second(w, chosen);
        w.splitting = borrowed;
        return bad;
    }

    Batch &batch_;
    const Shape &S_;
    const Layout &Y_;
    const Call &call_;
    const bool shared_;
    const Solving<Clock> solving_;
    std::vector<char> open_; // bytes, as threads write to neighbours
    std::unique_ptr<Common> common_;
    Workspace common_workspace_;
    bool common_is_factored_ = false;
};

int Batch::forward(const Settings &settings, const Call &call) {
    return ForwardPass(*this, settings, call).run();
}

} // namespace cvxfold
