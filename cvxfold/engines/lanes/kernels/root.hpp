// Roots of increasing functions of one variable, one for each lane.
#pragma once

#include "elementary.hpp"

namespace cvxfold {

// Newton's method inside a bracket that every value narrows.
//
// Made for functions that end like a logarithm at a finite end of their interval: a step that would leave the
// bracket is taken in the logarithm of the distance to that end, and if that fails too the bracket is halved.
//
// Args: function: value and slope at a pack of points, by reference. start: inside. low, high: the interval,
// may be infinite. done: lanes with nothing to find.
template <typename Function>
inline Value bracketed_newton(Function function, Value start, Value low, Value high, Mask done) {
    const double eps = 2.220446049250313e-16;
    Value below = select(finite(low), low + 4 * eps * abs(low), low);
    Value above = select(finite(high), high - 4 * eps * abs(high), high);
    Value x = start;
    for (int step = 0; step < 100 && any(~done); step++) {
        Value value, slope;
        function(x, value, slope);
        Mask negative = value < 0.0;
        below = select(negative, x, below);
        above = select(negative, above, x);
        Value move = value / slope, next = x - move;
        Mask outside = ~((next >= below) & (next <= above));
        if (any(outside & ~done)) {
            Value end = select(move > 0.0, low, high), gap = end - x;
            Value inner = end - gap * exp(-abs(move / gap));
            inner = select(inner < below, below, select(inner > above, above, inner));
            inner = select(finite(inner), inner, 0.5 * (below + above));
            next = select(outside, select(finite(inner), inner, x), next);
        }
        // Where the value, a logarithm, is this small the error that Newton's step leaves is about its
        // square.
        Mask quadratic = (abs(value) <= 0.1 * 1.49e-8) & ~outside;
        Value tolerance = select(quadratic, splat(1e-6), splat(8 * eps));
        Mask small = abs(next - x) <= tolerance * (abs(x) + 1.0);
        x = select(done, x, next);
        done |= small;
    }
    return x;
}

} // namespace cvxfold
