// Instances on the way through the passes: which are in a pack, and what is left to do.
#pragma once

#include "pack.hpp"

namespace cvxfold {

// What the first pass leaves of an instance to be done: nothing; all of it, as its start led astray; the
// rest.
enum Open : char { SETTLED, MISLED, LEFT };

// Some instances, one for each lane of a pack; the last one again in lanes beyond `count`.
struct Chosen {
    int instance[W], count;

    // Of a list, those of a pack.
    Chosen(const int *list, int length, int pack) : count(least(W, length - pack * W)) {
        for (int lane = 0; lane < W; lane++)
            instance[lane] = list[pack * W + least(lane, count - 1)];
    }

    // Neighbours in a batch.
    Chosen(int batch, int pack) : count(least(W, batch - pack * W)) {
        for (int lane = 0; lane < W; lane++)
            instance[lane] = least(pack * W + lane, batch - 1);
    }
};

} // namespace cvxfold
