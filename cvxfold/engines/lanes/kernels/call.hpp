// What a call hands over: arrays of the caller's, and figures of each instance.
#pragma once

#include "standard.hpp"

namespace cvxfold {

struct Layout;

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
    double *ends;                    // (B, 2 n + 3 m + 1): x, y, s, D, E and their age;
                                     // (B, n + 2 m): x, y, s where P and A are shared; or null
    double *figures;                 // (B, ForwardFigure::COUNT)
    double *state;                   // as `state_size` says, aligned to a pack
    const int64_t *places; // rows of `start` and of `ends`, which may be one array, that are instances', no
                           // two the same; only who is solved has its row of `ends` filled then. null for
                           // rows in the instances' order, all filled
};

struct BackwardCall {
    int32_t batch, threads, shared;
    int32_t raw;                           // whether (p, v) are wanted instead of gradients of parameters
    double tolerance, suspect, negligible; // on the residual; J's smallest singular value; the forward error
    const double *const *output_gradients; // each (B, size), null for zero
    double *const *gradients; // of each parameter (B, size), null for unwanted; or p (B, n), v (B, m)
    double *figures;          // (B, BackwardFigure::COUNT)
    const double *state;
    const Layout *asked; // the layout of what is asked for alone; null for the call's own
};

} // namespace cvxfold
