// Loops over packs in memory, that say what does not depend on what.
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

// Calls step(first, count) for runs of steps, `count` a constant: AHEAD, then 1.
template <typename Step> inline void in_runs(int from, int to, Step step) {
    int i = from;
    if constexpr (AHEAD > 1)
        for (; i + AHEAD <= to; i += AHEAD)
            step(i, Constant<AHEAD>());
    for (; i < to; i++)
        step(i, Constant<1>());
}

// out[i] = f(i) for i < count. f(i) may read out[i], but nothing else that is written here.
template <typename F> inline void fill(Pack *out, int count, F f) {
    in_runs(0, count, [&](int first, auto run) {
        Value value[run.value];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k);
        for (int k = 0; k < run.value; k++)
            out[first + k] = value[k];
    });
}

inline void clear(Pack *out, int count) {
    fill(out, count, [](int) { return Value{}; });
}

// to[index[e]] = f(e, to[index[e]]) for `from` <= e < `until`, whose places are all different.
template <typename F> inline void change_at(Pack *to, const int32_t *index, int from, int until, F f) {
    in_runs(from, until, [&](int first, auto run) {
        Value value[run.value];
        int place[run.value];
        for (int k = 0; k < run.value; k++)
            place[k] = index[first + k];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k, to[place[k]]);
        for (int k = 0; k < run.value; k++)
            to[place[k]] = value[k];
    });
}

// join(… join(join(start, f(from)), f(from + 1)) …): sums, and the like.
template <typename F, typename Join> inline Value fold(int from, int until, Value start, F f, Join join) {
    in_runs(from, until, [&](int first, auto run) {
        Value value[run.value];
        for (int k = 0; k < run.value; k++)
            value[k] = f(first + k);
        for (int k = 0; k < run.value; k++)
            start = join(start, value[k]);
    });
    return start;
}

template <typename F> inline Value sum_of(int from, int until, F f) {
    return fold(from, until, Value{}, f, [](Value sum, Value term) { return sum + term; });
}

// The largest of f(i), NaN where one is.
template <typename F> inline Value largest_of(int from, int until, F f) {
    return fold(from, until, Value{}, f, [](Value so_far, Value value) { return largest(so_far, value); });
}

} // namespace cvxfold
