// A batch of instances of one structure: what is handed over, what is kept for the backward pass, and the
// passes.
#pragma once

#include <memory>
#include <mutex>

#include "analysis.hpp"
#include "kernels/differentiating.hpp"
#include "kernels/solving.hpp"
#include "memory.hpp"

namespace cvxfold {

// P and A that no parameter reaches, equilibrated, and the splitting's factor under a penalty: the same in
// all calls, made by the first one.
struct ForAllCalls {
    std::once_flag made;
    std::unique_ptr<MemoryPool::Lease> lease;
    std::unique_ptr<Common> common; // null until then
    double penalty = 0;
};

class Batch {
  public:
    Batch(const Description &description, const Layout &layout);

    const Analysis &analysis() const { return analysis_; }
    const Layout &layout() const { return layout_; }
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

    bool is_constant() const { return layout_.moving_P == 0 && layout_.moving_A == 0; }

    size_t workspace_size(bool shared) const; // in packs, like the others
    size_t common_size() const;
    // What the batch shares: the same in all calls, or from a state into memory that `lease` comes to hold.
    std::unique_ptr<Common> common_of(const double *state, std::unique_ptr<MemoryPool::Lease> &lease);

    Analysis analysis_;
    Layout layout_;
    MemoryPool workspaces_, shared_workspaces_, commons_;
    ForAllCalls constant_; // goes before its memory
};

// A workspace, with what the batch shares in its place.
struct Workplace {
    MemoryPool::Lease lease;
    Workspace w;
    Workplace(const Shape &S, int entries, MemoryPool &pool, const Common *common);
};

} // namespace cvxfold
