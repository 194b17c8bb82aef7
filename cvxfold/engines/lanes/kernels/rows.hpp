// Entries whose places are neighbours, as those of a row of a dense A are: there one instance alone fills
// vectors. Elsewhere, and where packs are vectors already, the same numbers one by one.
#pragma once

#include "loops.hpp"

#if defined(__clang__)
#define CVXFOLD_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define CVXFOLD_INDEPENDENT _Pragma("GCC ivdep")
#else
#define CVXFOLD_INDEPENDENT
#endif

#if !defined(CVXFOLD_STRIDE) && CVXFOLD_WIDTH == 1
#define CVXFOLD_QUADS 1
#ifdef __FMA__
#include <immintrin.h>
#endif
#else
#define CVXFOLD_QUADS 0
#endif

namespace cvxfold {

constexpr int FEW_NEIGHBOURS = 8; // that are worked on one by one

// Whether `from` <= e < `until` are many and have neighbouring places; index rises.
inline bool stand_together(const int32_t *index, int from, int until) {
    return until - from >= FEW_NEIGHBOURS && index[until - 1] - index[from] == until - 1 - from;
}

// Whether they fill vectors.
inline bool are_neighbours(const int32_t *index, int from, int until) {
    return CVXFOLD_QUADS && stand_together(index, from, until);
}

// to[index[e]] = f(e, to[index[e]]) for `from` <= e < `until`; index rises.
template <typename F> inline void change_row(Pack *to, const int32_t *index, int from, int until, F f) {
    if (are_neighbours(index, from, until)) {
        Pack *CVXFOLD_RESTRICT out = to + (index[from] - from);
        CVXFOLD_INDEPENDENT
        for (int e = from; e < until; e++)
            out[e] = f(e, Value(out[e]));
    } else {
        change_at(to, index, from, until, f);
    }
}

// Of numbers that stand together.
template <typename Number>
inline void copy_together(Number *CVXFOLD_RESTRICT to, const Number *CVXFOLD_RESTRICT from, int count) {
    for (int i = 0; i < count; i++)
        to[i] = from[i];
}

#if CVXFOLD_QUADS
// Four numbers of one instance.
typedef double Quad __attribute__((vector_size(32)));
typedef int64_t QuadMask __attribute__((vector_size(32)));

static_assert(SUMS == 4, "as many sums side by side as numbers of a quad");

inline Quad quad_at(const Pack *place) {
    Quad quad;
    __builtin_memcpy(&quad, place, sizeof quad);
    return quad;
}

inline Quad quad_of(Value number) {
    const double a = number.number;
    return Quad{a, a, a, a};
}

inline void put_quad(Pack *place, Quad quad) { __builtin_memcpy(&place->number, &quad, sizeof quad); }

inline Quad fused(Quad a, Quad b, Quad c) {
#ifdef __FMA__
    return (Quad)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    Quad out;
    for (int k = 0; k < SUMS; k++)
        out[k] = fused(a[k], b[k], c[k]);
    return out;
#endif
}

inline Quad abs(Quad a) { return (Quad)((QuadMask)a & 0x7fffffffffffffffLL); }

inline Quad operator*(Quad a, Value b) { return a * b.number; }

inline Quad largest(Quad so_far, Quad value) { return (value > so_far) | (value != value) ? value : so_far; }

// own[k] = add(own[k], e + k) for as many e by fours as there are; returns the first that is left.
template <typename Add> inline int add_by_quads(int from, int until, Value (&own)[SUMS], Add add) {
    Quad sums = {own[0].number, own[1].number, own[2].number, own[3].number};
    int e = from;
    for (; e + SUMS <= until; e += SUMS)
        sums = add(sums, e);
    for (int k = 0; k < SUMS; k++)
        own[k] = sums[k];
    return e;
}
#endif

// term(a(e), x(index[e]), sum) again and again from `start`, `from` <= e < `until`: SUMS sums side by side,
// as `sum_of_products` has them. index rises.
template <typename Term>
inline Value sum_over_row(const Pack *a, const Pack *x, const int32_t *index, int from, int until,
                          Value start, Term term) {
    Value own[SUMS] = {};
    if (number_in_group() == 0)
        own[0] = start;
    together();
#if CVXFOLD_QUADS
    if (are_neighbours(index, from, until)) {
        const Pack *beside = x + (index[from] - from);
        int e = add_by_quads(from, until, own, [&](Quad sums, int e) {
            return term(quad_at(a + e), quad_at(beside + e), sums);
        });
        for (; e < until; e++)
            own[0] = term(a[e], beside[e], own[0]);
        return total_of(own);
    }
#endif
    in_runs<SUMS>(from, until, [&](int first, auto run) {
        Value left[run.value], right[run.value];
        for (int k = 0; k < run.value; k++) {
            left[k] = a[first + k * GROUP];
            right[k] = x[index[first + k * GROUP]];
        }
        for (int k = 0; k < run.value; k++)
            own[k] = term(left[k], right[k], own[k]);
    });
    return joined(total_of(own), Sum());
}

// a[e] = f(a[e], x(index[e])) for `from` <= e < `until`; index rises.
template <typename F>
inline void scale_row(Pack *a, const Pack *x, const int32_t *index, int from, int until, F f) {
    if (are_neighbours(index, from, until)) {
        const Pack *CVXFOLD_RESTRICT beside = x + (index[from] - from);
        CVXFOLD_INDEPENDENT
        for (int e = from; e < until; e++)
            a[e] = f(Value(a[e]), Value(beside[e]));
    } else {
        fill(a + from, until - from, [&](int k) { return f(Value(a[from + k]), Value(x[index[from + k]])); });
    }
}

// The largest |v_i|, NaN where one is.
CVXFOLD_LONG Value largest_size(const Pack *v, int size) {
#if CVXFOLD_QUADS
    Value own[SUMS] = {};
    int i =
        add_by_quads(0, size, own, [&](Quad sums, int at) { return largest(sums, abs(quad_at(v + at))); });
    for (; i < size; i++)
        own[0] = largest(own[0], abs(v[i]));
    return largest(largest(own[0], own[1]), largest(own[2], own[3]));
#else
    return largest_of(0, size, [&](int i) { return abs(v[i]); });
#endif
}

} // namespace cvxfold
