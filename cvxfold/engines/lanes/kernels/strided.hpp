// Packs of one instance each, whose neighbours lie between them: what a thread of a GPU works on.
//
// STRIDE threads, one instance each, share memory in which a number of one is followed by that of the next. A
// thread's array of packs is the same memory from its own place on: only the first number of what a pack
// spans is its own, and nothing else is ever read, written or copied. So the kernels' text stands as it is.
#pragma once

#include "alone.hpp"

namespace cvxfold {

constexpr int WARP = 32; // threads

constexpr int LANES = CVXFOLD_STRIDE, TOGETHER = 1;

// Threads that work on one instance together: all of them run through everything, and share the loops over
// memory (loops.hpp). Thread t of a warp is number t / LANES of instance t % LANES.
constexpr int GROUP = WARP / LANES, AHEAD = GROUP > 1 ? 4 : 8;

inline int number_in_group() { return GROUP > 1 ? threadIdx.x / LANES : 0; }

inline unsigned group_mask() {
    unsigned mask = 0;
    for (int k = 0; k < GROUP; k++)
        mask |= 1u << (k * LANES);
    return mask << (threadIdx.x % LANES);
}

// What one has written, the others see from here on.
inline void together() {
    if (GROUP > 1)
        __syncwarp(group_mask());
}

inline double of_partner(double value, int distance) {
    return __shfl_xor_sync(group_mask(), value, distance * LANES);
}

// Whether something holds for all of a group, where what each sees may differ: a clock.
inline bool agreed(bool mine) { return GROUP > 1 ? __all_sync(group_mask(), mine) : mine; }

// A number in memory, with those of the neighbours behind it.
struct Pack : Value {
    double neighbours[LANES - 1];

    Pack() {}
    Pack(double value) : Value(value) {}
    Pack(Value value) : Value(value) {}
    explicit Pack(Mask mask) : Value(mask) {}
    Pack(const Pack &other) : Value(other.number) {}
    Pack &operator=(const Pack &other) {
        number = other.number;
        return *this;
    }
    Pack &operator=(Value value) {
        number = value.number;
        return *this;
    }
    Pack &operator=(double value) {
        number = value;
        return *this;
    }
};

} // namespace cvxfold
