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

size_t Batch::block_size(bool shared) const { return Block(analysis_.shape, shared, nullptr).used; }

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

std::unique_ptr<Common> Batch::common_of(const double *state, const MemoryPool::Lease &lease) const {
    auto common = std::make_unique<Common>(analysis_.shape, lease.memory());
    common->each(analysis_.shape, [&](Pack &number) { number = splat(*state++); });
    return common;
}

void Batch::points(int batch, bool shared, const double *state, double *x, double *y, double *s) {
    const Shape &S = analysis_.shape;
    std::unique_ptr<MemoryPool::Lease> lease;
    std::unique_ptr<Common> common;
    if (shared) {
        lease = std::make_unique<MemoryPool::Lease>(commons_);
        common = common_of(state, *lease);
    }
    Workplace place(S, layout_.entries, shared ? shared_workspaces_ : workspaces_, common.get());
    Workspace &w = place.w;
    for (int block = 0; block * W < batch; block++) {
        const Block kept(S, shared, block_at(const_cast<double *>(state), block, shared));
        kept.restore(S, w);
        set_penalty(S, w, *kept.rho);
        reset(S, w.roots);
        decompose(S, w, w.u);
        for (int lane = 0; lane < W && block * W + lane < batch; lane++) {
            const double size = (*kept.size)[lane];
            for (int i = 0; i < S.n; i++)
                *x++ = w.x[i][lane] * w.columns[i][lane] * size;
            for (int j = 0; j < S.m; j++) {
                *y++ = w.y[j][lane] * w.rows[j][lane] * size;
                *s++ = w.s[j][lane] / w.rows[j][lane] * size;
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
