// One number of each of W instances: packs, and masks that say of which.
//
// Every kernel is written once over packs. A branch is a mask: a lane that has finished keeps its bits, so
// the answer of an instance depends neither on its neighbours nor on its place in the batch.
#pragma once

// Where threads share the work on memory, it changes behind a thread's back.
#if defined(CVXFOLD_STRIDE) && CVXFOLD_STRIDE < 32
#define CVXFOLD_RESTRICT
#else
#define CVXFOLD_RESTRICT __restrict
#endif

#ifdef CVXFOLD_STRIDE
#include "strided.hpp"
#else

#ifndef CVXFOLD_WIDTH
#define CVXFOLD_WIDTH 8
#endif

#if CVXFOLD_WIDTH == 1
#include "alone.hpp"

namespace cvxfold {

constexpr int LANES = W;

typedef Value Pack;

} // namespace cvxfold
#else
#include "side_by_side.hpp"
#endif

namespace cvxfold {

constexpr int AHEAD = 1, GROUP = 1; // for strided.hpp's sake

constexpr int TOGETHER = 8; // roots that are looked for side by side

inline int number_in_group() { return 0; }

inline void together() {}

inline double of_partner(double value, int) { return value; }

} // namespace cvxfold

#endif

namespace cvxfold {

inline Mask none() { return Mask{}; }

inline Value max(Value a, Value b) { return select(a > b, a, b); }

inline Value min(Value a, Value b) { return select(a < b, a, b); }

// Like max, but NaN in `value` stays: what was not a number must be seen at the end.
inline Value largest(Value so_far, Value value) {
    return select((value > so_far) | (value != value), value, so_far);
}

inline Value abs(Value a) { return (Value)((Mask)a & 0x7fffffffffffffffLL); }

inline Value sqrt(Value a) {
    Value root;
    for (int lane = 0; lane < W; lane++)
        root[lane] = square_root(a[lane]);
    return root;
}

// a / b, and `otherwise` where b is zero.
inline Value ratio(Value a, Value b, Value otherwise) {
    Mask zero = b == 0.0;
    return select(zero, otherwise, a / select(zero, splat(1), b));
}

inline Mask finite(Value a) { return abs(a) <= splat(1.7976931348623157e308); }

} // namespace cvxfold
