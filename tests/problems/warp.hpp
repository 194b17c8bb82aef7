// A warp's threads on the CPU, for the device's kernels: each with a stack of its own, one at a time, and as
// far out of step as CUDA allows. A thread runs on until it waits for others, and who runs next is drawn by
// lot. So what relies on threads being in step comes to other answers, or is found waiting for who never
// comes.
#pragma once

#include <functional>

struct Index {
    int x;
};
extern Index threadIdx, blockIdx, gridDim;

// What kernels call. Those of `mask` wait for each other, and must have come by the same line.
void __syncwarp(unsigned mask = 0xffffffff);
double __shfl_xor_sync(unsigned mask, double value, int distance);
bool __all_sync(unsigned mask, bool mine);
bool __any_sync(unsigned mask, bool mine);
int atomicAdd(int *counter, int by);

// Runs a kernel in `blocks` blocks of a warp each. Returns an empty text, or what was wrong: "race PC PC",
// two places in this module, for each pair of accesses of one number, one of them a write, between which the
// threads did not wait for each other; or "apart PC PC" for two places where threads wait for each other in
// vain.
const char *run_warps(int blocks, unsigned lot, const std::function<void()> &kernel);
