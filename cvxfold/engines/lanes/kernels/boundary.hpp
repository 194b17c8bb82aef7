// How far a step may go inside of a cone where only points can be tried.
#pragma once

#include "pack.hpp"

namespace cvxfold {

const double SHRINK = 0.6; // of a step that leaves the cone
const int TRIALS = 40;

// A t <= most, about the largest, with inside(t), to so many bisections; zero where no trial is inside.
template <typename Inside> inline Value longest_inside(Inside inside, Value most, int bisections) {
    Value t = most;
    Mask seeking = ~inside(t), shortened = seeking;
    for (int trial = 0; trial < TRIALS && any(seeking); trial++) {
        t = select(seeking, t * SHRINK, t);
        seeking &= ~inside(t);
    }
    t = select(seeking, Value{}, t);
    Value outside = t / SHRINK;
    for (int step = 0; step < bisections && any(shortened); step++) {
        const Value middle = 0.5 * (t + outside);
        const Mask in = inside(middle);
        t = select(shortened & in, middle, t);
        outside = select(shortened & ~in, middle, outside);
    }
    return t;
}

} // namespace cvxfold
