// Roots of increasing functions of one variable, one for each lane.
#pragma once

#include "elementary.hpp"

namespace cvxfold {

// Values from which a step's error, about the square of Newton's or the cube of Halley's, is rounding; and
// from which Halley's is a hundred-thousandth.
const double NEARLY_BY_SQUARE = 1.5e-9, NEARLY_BY_CUBE = 1e-6, ROUGHLY_BY_CUBE = 2e-2;
const double FARTHEST_LAST = 1e-6; // length of such a step

// Newton's or Halley's method inside a bracket that every value narrows.
//
// Made for functions that end like a logarithm at a finite end of their interval: a step that would leave the
// bracket is taken in the logarithm of the distance to that end, and if that fails too the bracket is halved.
struct Bracket {
    Value low, high;    // the interval, which may be infinite
    Value below, above; // what is left of it
    Value x;            // the last point
    Mask done;

    Bracket() {}

    // start: inside. done: lanes with nothing to find.
    Bracket(Value start, Value low, Value high, Mask done) : low(low), high(high), x(start), done(done) {
        const double eps = 2.220446049250313e-16;
        below = select(finite(low), low + 4 * eps * abs(low), low);
        above = select(finite(high), high - 4 * eps * abs(high), high);
    }

    // One step, by the function's value at x and the method's move, to be the last where the value, a
    // logarithm, is at most `nearly`: what such a step leaves is nothing.
    void step(Value value, Value move, double nearly) {
        const double eps = 2.220446049250313e-16;
        Mask negative = value < 0.0;
        below = select(negative, x, below);
        above = select(negative, above, x);
        Value next = x - move;
        Mask outside = ~((next >= below) & (next <= above));
        if (any(outside & ~done)) {
            Value end = select(move > 0.0, low, high), gap = end - x;
            Value inner = end - gap * exp(-abs(move / gap));
            inner = select(inner < below, below, select(inner > above, above, inner));
            inner = select(finite(inner), inner, 0.5 * (below + above));
            next = select(outside, select(finite(inner), inner, x), next);
        }
        Mask last = (abs(value) <= nearly) & ~outside;
        Value tolerance =
            select(last, splat(nearly > FARTHEST_LAST ? nearly : FARTHEST_LAST), splat(8 * eps));
        Mask small = abs(next - x) <= tolerance * (abs(x) + 1.0);
        x = select(done, x, next);
        done |= small;
    }
};

// Roots in `count` brackets, for functions whose value and move at x are function(number, x, value, move), by
// reference. Each step waits for the one before; those of several brackets are made side by side.
template <typename Function>
inline void find_roots(Bracket *brackets, int count, double nearly, Function function) {
    bool open = true;
    for (int step = 0; step < 100 && open; step++) {
        open = false;
        for (int i = 0; i < count; i++) {
            if (!any(~brackets[i].done))
                continue;
            open = true;
            Value value, move;
            function(i, brackets[i].x, value, move);
            brackets[i].step(value, move, nearly);
        }
    }
}

} // namespace cvxfold
