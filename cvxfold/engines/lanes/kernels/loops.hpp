// Loops over packs in memory, that say what does not depend on what.
//
// Where threads share the work on an instance (strided.hpp), they share it here. They run through the same
// text, each for itself, and nothing keeps them in step but `together`, at the begin and the end of each
// loop:
//
// - What all of a group see is written in these forms alone, each number by one thread.
// - Everybody may read it, outside of them too.
// - The forms are for what all of a group come by: neither inside of each other's steps, nor behind a
//   condition that is not the same for all. What a step calls works on its own.
//
// A compiler cannot know that arrays are different, so it would finish each step's store before the next
// step's loads. Where memory is far away, as on a GPU, that wait is most of the time: there AHEAD steps are
// read before any of them is written. The numbers are the same.
#pragma once

#include "pack.hpp"

namespace cvxfold {

template <int N> struct Constant {
    static constexpr int value = N;
};

// Calls step(first, run) for this thread's steps of `from` <= i < `to`: those at first + k GROUP for each k
// of a run, whose length is a constant: LONG, then 1.
template <int LONG = AHEAD, typename Step> inline void in_runs(int from, int to, Step step) {
    int i = from + number_in_group();
    if constexpr (LONG > 1) {
        CVXFOLD_ROLLED
        for (; i + (LONG - 1) * GROUP < to; i += LONG * GROUP)
            step(i, Constant<LONG>());
    }
    CVXFOLD_ROLLED
    for (; i < to; i += GROUP)
        step(i, Constant<1>());
}

// Calls step(i) for 0 <= i < count, for what is written elsewhere than in packs.
template <typename Step> inline void each(int count, Step step) {
    together();
    CVXFOLD_ROLLED
    for (int i = number_in_group(); i < count; i += GROUP)
        step(i);
    together();
}

// What only one of a group does, as it goes step by step.
template <typename Work> inline void one_by_one(Work work) {
    together();
    if (number_in_group() == 0)
        work();
    together();
}

// place = value, which is the same for all of a group.
inline void set(Pack &place, Value value) {
    one_by_one([&] { place = value; });
}

// out[i] = f(i) for i < count. f(i) may read out[i], but nothing else that is written here.
template <typename F> inline void fill(Pack *out, int count, F f) {
    together();
    in_runs(0, count, [&](int first, auto run) {
        Value value[run.value];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k * GROUP);
        for (int k = 0; k < run.value; k++)
            out[first + k * GROUP] = value[k];
    });
    together();
}

inline void clear(Pack *out, int count) {
    fill(out, count, [](int) { return Value{}; });
}

// to[index[e]] = f(e, to[index[e]]) for `from` <= e < `until`, whose places are all different.
template <typename F> inline void change_at(Pack *to, const int32_t *index, int from, int until, F f) {
    together();
    in_runs(from, until, [&](int first, auto run) {
        Value value[run.value];
        int place[run.value];
        for (int k = 0; k < run.value; k++)
            place[k] = index[first + k * GROUP];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k * GROUP, to[place[k]]);
        for (int k = 0; k < run.value; k++)
            to[place[k]] = value[k];
    });
    together();
}

// The sum of sums side by side.
template <int COUNT> inline Value total_of(const Value (&sums)[COUNT]) {
    Value total = sums[0];
    for (int k = 1; k < COUNT; k++)
        total = total + sums[k];
    return total;
}

// What joins two numbers.
struct Sum {
    Value operator()(Value a, Value b) const { return a + b; }
};
struct Larger {
    Value operator()(Value a, Value b) const { return max(a, b); }
};
struct Smaller {
    Value operator()(Value a, Value b) const { return min(a, b); }
};
struct Largest { // NaN where one is
    Value operator()(Value so_far, Value value) const { return largest(so_far, value); }
};

// The same number for all of a group: `own` of each, joined.
template <typename Join> inline Value joined(Value own, Join join) {
    for (int distance = GROUP / 2; distance > 0; distance /= 2) {
        Value other;
        for (int lane = 0; lane < W; lane++)
            other[lane] = of_partner(own[lane], distance);
        own = join(own, other);
    }
    return own;
}

// join(… join(join(start, f(from)), f(from + 1)) …): sums, and the like, of which zero is neutral.
template <typename F, typename Join> inline Value fold(int from, int until, Value start, F f, Join join) {
    Value own = number_in_group() == 0 ? start : Value{};
    together();
    in_runs(from, until, [&](int first, auto run) {
        Value value[run.value];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k * GROUP);
        for (int k = 0; k < run.value; k++)
            own = join(own, value[k]);
    });
    return joined(own, join);
}

template <typename F> inline Value sum_of(int from, int until, F f) {
    return fold(from, until, Value{}, f, Sum());
}

// Sums of products are SUMS sums side by side, none of which waits for another.
constexpr int SUMS = 4 > AHEAD ? 4 : AHEAD;

// start + a(from) b(from) + a(from + 1) b(from + 1) + …
template <typename A, typename B> inline Value sum_of_products(int from, int until, Value start, A a, B b) {
    Value own[SUMS] = {};
    if (number_in_group() == 0)
        own[0] = start;
    together();
    in_runs<SUMS>(from, until, [&](int first, auto run) {
        Value left[run.value], right[run.value];
        for (int k = 0; k < run.value; k++) {
            left[k] = a(first + k * GROUP);
            right[k] = b(first + k * GROUP);
        }
        for (int k = 0; k < run.value; k++)
            own[k] = fused(left[k], right[k], own[k]);
    });
    return joined(total_of(own), Sum());
}

// The largest of f(i), NaN where one is.
template <typename F> inline Value largest_of(int from, int until, F f) {
    return fold(from, until, Value{}, f, Largest());
}

// For what is written once for who works alone, and once for a group.
struct ByGroup {
    template <typename Step> static void each(int count, Step step) { cvxfold::each(count, step); }
    template <typename Work> static void one_by_one(Work work) { cvxfold::one_by_one(work); }
    template <typename A, typename B> static Value sum_of_products(int from, int until, A a, B b) {
        return cvxfold::sum_of_products(from, until, Value{}, a, b);
    }
};
struct ByOne {
    template <typename Step> static void each(int count, Step step) {
        for (int i = 0; i < count; i++)
            step(i);
    }
    template <typename Work> static void one_by_one(Work work) { work(); }
    template <typename A, typename B> static Value sum_of_products(int from, int until, A a, B b) {
        Value sum{};
        for (int i = from; i < until; i++)
            sum = fused(a(i), b(i), sum);
        return sum;
    }
};

} // namespace cvxfold
