#include <atomic>
#include <memory>

#include "batch.hpp"
#include "pool.hpp"

namespace cvxfold {

int Batch::backward(const BackwardCall &call) {
    const bool shared = call.shared != 0;
    std::unique_ptr<MemoryPool::Lease> lease;
    std::unique_ptr<Common> common;
    if (shared)
        common = common_of(call.state, lease);
    const Differentiating work(analysis_.shape, layout_, call);
    const int packs = (call.batch + W - 1) / W;
    std::atomic<int> next(0), suspicious(0);
    in_parallel(std::min(call.threads, packs), [&] {
        Workplace place(analysis_.shape, layout_.entries, shared ? shared_workspaces_ : workspaces_,
                        common.get());
        for (int pack; (pack = next.fetch_add(1)) < packs;)
            suspicious += work.differentiate(place.w, pack);
    });
    return suspicious;
}

} // namespace cvxfold
