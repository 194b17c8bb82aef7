// One number of each of W instances: packs, and masks that say of which.
//
// Every kernel is written once over packs. A branch is a mask: a lane that has finished keeps its bits, so
// the answer of an instance depends neither on its neighbours nor on its place in the batch.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef CVXFOLD_WIDTH
#define CVXFOLD_WIDTH 8
#endif

namespace cvxfold {

constexpr int W = CVXFOLD_WIDTH;
static_assert(W >= 2 && (W & (W - 1)) == 0, "a pack holds a power of two of numbers");

typedef double Pack __attribute__((vector_size(W * 8)));
typedef int64_t Mask __attribute__((vector_size(W * 8)));

inline Pack splat(double value) { return Pack{} + value; }

inline Pack select(Mask where, Pack yes, Pack no) { return where ? yes : no; }

inline Mask none() { return Mask{}; }

inline Mask all() { return ~Mask{}; }

inline bool any(Mask mask) {
    int64_t found = 0;
    for (int lane = 0; lane < W; lane++)
        found |= mask[lane];
    return found != 0;
}

// The mask of the first `count` lanes.
inline Mask first_lanes(int count) {
    Mask mask{};
    for (int lane = 0; lane < W; lane++)
        mask[lane] = lane < count ? -1 : 0;
    return mask;
}

inline Pack max(Pack a, Pack b) { return a > b ? a : b; }

inline Pack min(Pack a, Pack b) { return a < b ? a : b; }

// Like max, but NaN in `value` stays: what was not a number must be seen at the end.
inline Pack largest(Pack so_far, Pack value) {
    return ((value > so_far) | (value != value)) ? value : so_far;
}

inline Pack abs(Pack a) { return (Pack)((Mask)a & INT64_MAX); }

inline Pack sqrt(Pack a) {
    Pack root;
    for (int lane = 0; lane < W; lane++)
        root[lane] = __builtin_sqrt(a[lane]);
    return root;
}

// a / b, and `otherwise` where b is zero.
inline Pack ratio(Pack a, Pack b, Pack otherwise) {
    Mask zero = b == 0.0;
    return select(zero, otherwise, a / select(zero, splat(1), b));
}

inline Mask finite(Pack a) { return abs(a) <= splat(1.7976931348623157e308); }

} // namespace cvxfold
