// A batch of instances of one structure: what is handed over, what is kept for the backward pass, and the
// passes.
#pragma once

#include <memory>

#include "analysis.hpp"
#include "kernels/backward.hpp"
#include "kernels/forward.hpp"
#include "memory.hpp"
#include "state.hpp"

namespace cvxfold {

// Figures of an instance, as rows of doubles; Python has the same list.
struct ForwardFigure {
    enum {
        STATUS,
        ITERATIONS,
        NEWTON_STEPS,
        FACTORIZATIONS,
        PRIMAL,
        DUAL,
        GAP,
        RELATIVE,
        CERTIFICATE,
        PENALTY,
        SECOND_PASS,
        COUNT
    };
};
struct BackwardFigure {
    enum {
        RESIDUAL,
        CORRECTIONS,
        MARGIN,
        ON_KINK,
        SMALLEST,
        MATTERS,
        OFFSET,
        ERROR,
        STRENGTH,
        GRADIENT,
        FLAT,
        COUNT
    };
};

// One call's batch. Every array is the caller's.
struct Call {
    int32_t batch, threads;
    int32_t shared;                  // whether no parameter that varies in the batch reaches P or A
    const double *const *parameters; // each (1|B, size), row-major
    const int64_t *strides;          // of each parameter from one instance to the next; 0 where shared
    int32_t start_width;             // numbers of a row of `start`
    const double *start;             // (B, n + 2 m) or as `ends`, x_0 NaN for instances without; or null
    double *const *outputs;          // each (B, size); null for those that nobody wants
    double *ends;                    // (B, 2 n + 3 m + 1): x, y, s, D, E and their age; or null
    double *figures;                 // (B, ForwardFigure::COUNT)
    double *state;                   // as `state_size` says, aligned to a pack
};

struct BackwardCall {
    int32_t batch, threads, shared;
    int32_t raw;                           // whether (p, v) are wanted instead of gradients of parameters
    double tolerance, suspect, negligible; // on the residual; J's smallest singular value; the forward error
    const double *const *output_gradients; // each (B, size), null for zero
    double *const *gradients; // of each parameter (B, size), null for unwanted; or p (B, n), v (B, m)
    double *figures;          // (B, BackwardFigure::COUNT)
    const double *state;
};

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
    friend class BackwardPass;

    size_t workspace_size(bool shared) const; // in packs, like the others
    size_t common_size() const;
    size_t block_size(bool shared) const;
    size_t head_size(bool shared) const; // in doubles
    Pack *block_at(double *state, int block, bool shared) const;
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
