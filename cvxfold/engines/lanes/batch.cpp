#include "batch.hpp"

namespace cvxfold {

Batch::Batch(const Description &description, const Layout &layout)
    : analysis_(description), layout_(layout), workspaces_(workspace_size(false)),
      shared_workspaces_(workspace_size(true)), commons_(common_size()) {}

size_t Batch::workspace_size(bool shared) const {
    Workspace w;
    return lay_out(analysis_.shape, layout_.entries, shared, w, nullptr);
}

// Whatever prepares what is shared needs a workspace too.
size_t Batch::common_size() const { return Common(analysis_.shape, nullptr).used + workspace_size(true); }

size_t Batch::state_size(int batch, bool shared) const {
    const States states(analysis_.shape, shared);
    const size_t blocks = (batch + W - 1) / W;
    return states.head + blocks * states.block * W;
}

std::unique_ptr<Common> Batch::common_of(const double *state, std::unique_ptr<MemoryPool::Lease> &lease) {
    if (is_constant() && constant_.common)
        return std::make_unique<Common>(*constant_.common);
    lease = std::make_unique<MemoryPool::Lease>(commons_);
    auto common = std::make_unique<Common>(analysis_.shape, lease->memory());
    common->each(analysis_.shape, [&](Pack &number) { number = splat(*state++); });
    return common;
}

void Batch::points(int batch, bool shared, const double *state, double *x, double *y, double *s) {
    const Shape &S = analysis_.shape;
    std::unique_ptr<MemoryPool::Lease> lease;
    std::unique_ptr<Common> common;
    if (shared)
        common = common_of(state, lease);
    Workplace place(S, layout_.entries, shared ? shared_workspaces_ : workspaces_, common.get());
    Workspace &w = place.w;
    const States states(S, shared);
    for (int pack = 0; pack * W < batch; pack++) {
        restore_points(S, w, Block(S, shared, states.at(const_cast<double *>(state), pack * W)));
        const Pack *own = w.own;
        for (int lane = 0; lane < W && pack * W + lane < batch; lane++) {
            for (int i = 0; i < S.n; i++)
                *x++ = own[i][lane];
            for (int j = 0; j < S.m; j++) {
                *y++ = own[S.n + j][lane];
                *s++ = own[S.N + j][lane];
            }
        }
    }
}

Workplace::Workplace(const Shape &S, int entries, MemoryPool &pool, const Common *common) : lease(pool) {
    lay_out(S, entries, common != nullptr, w, lease.memory());
    if (common)
        common->serve(w);
}

} // namespace cvxfold
