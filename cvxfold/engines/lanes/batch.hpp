// A batch of instances of one structure: what is handed over, what is kept for the backward pass, and the
// passes.
#pragma once

#include <memory>

#include "analysis.hpp"
#include "kernels/differentiating.hpp"
#include "kernels/solving.hpp"
#include "memory.hpp"

namespace cvxfold {

class Batch {
  public:
    Batch(const Description &description, const Layout &layout);

    const Analysis &analysis() const { return analysis_; }
    size_t state_size(int batch, bool shared) const; // in doubles
    size_t bytes_at_work(bool shared) const { return workspace_size(shared) * sizeof(Pack); }

    // Both return how many instances are not as they should be: not solved; suspicious, or not within
    // tolerance.
    int forward(const Settings &settings, const Call &call);
    int backward(const BackwardCall &call);

    // x (B, n), y and s (B, m) in own units, of what a forward pass left.
    void points(int batch, bool shared, const double *state, double *x, double *y, double *s);

  private:
    friend class ForwardPass;

    size_t workspace_size(bool shared) const; // in packs, like the others
    size_t common_size() const;
    // What the batch shares, from a state.
    std::unique_ptr<Common> common_of(const double *state, const MemoryPool::Lease &lease) const;

    Analysis analysis_;
    Layout layout_;
    MemoryPool workspaces_, shared_workspaces_, commons_;
};

// A workspace, with what the batch shares in its place.
struct Workplace {
    MemoryPool::Lease lease;
    Workspace w;
    Workplace(const Shape &S, int entries, MemoryPool &pool, const Common *common);
};

} // namespace cvxfold
