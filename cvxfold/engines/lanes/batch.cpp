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
size_t Batch::common_size() const {
    return Common(analysis_.shape, nullptr).used + workspace_size(true);
}

size_t Batch::block_size(bool shared) const {
    return Block(analysis_.shape, shared, nullptr).used;
}

size_t Batch::head_size(bool shared) const {
    const Shape &S = analysis_.shape;
    const size_t numbers = shared ? S.nnz_P + S.nnz_A + S.N : 0;
    return (numbers + W - 1) / W * W;
}

size_t Batch::state_size(int batch, bool shared) const {
    const size_t blocks = (batch + W - 1) / W;
    return head_size(shared) + blocks * block_size(shared) * W;
}

Pack *Batch::block_at(double *state, int block, bool shared) const {
    return reinterpret_cast<Pack *>(state + head_size(shared) + block * block_size(shared) * W);
}

Workplace::Workplace(const Shape &S, int entries, MemoryPool &pool, const Common *common) : lease(pool) {
    lay_out(S, entries, common != nullptr, w, lease.memory());
    if (common)
        common->serve(w);
}

} // namespace cvxfold
