// Packs of several instances, whose numbers lie side by side: vectors of the processor.
#pragma once

#include "standard.hpp"

#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_FMA)
#include <arm_neon.h>
#endif

namespace cvxfold {

// Instances that the operations of a pack serve, and instances whose numbers lie side by side.
constexpr int W = CVXFOLD_WIDTH, LANES = W;

static_assert(W >= 2 && (W & (W - 1)) == 0, "a pack holds a power of two of numbers");

typedef double Pack __attribute__((vector_size(W * 8)));
typedef Pack Value; // what stands by itself, in records and as an answer
typedef int64_t Mask __attribute__((vector_size(W * 8)));

inline Pack splat(double value) { return Pack{} + value; }

// Compilers make one instruction of several lanes' fused products in some places and not in others.
inline Pack fused(Pack a, Pack b, Pack c) {
#if defined(__FMA__) && CVXFOLD_WIDTH == 2
    return (Pack)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
#elif defined(__FMA__) && CVXFOLD_WIDTH == 4
    return (Pack)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__AVX512F__) && CVXFOLD_WIDTH == 8
    return (Pack)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__ARM_FEATURE_FMA) && CVXFOLD_WIDTH == 2
    return (Pack)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#elif defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    Pack out;
    for (int lane = 0; lane < W; lane++)
        out[lane] = fused(a[lane], b[lane], c[lane]);
    return out;
#else
    return a * b + c;
#endif
}

inline Pack select(Mask where, Pack yes, Pack no) { return where ? yes : no; }

inline Mask all() { return ~Mask{}; }

inline bool any(Mask mask) {
    int64_t found = 0;
    for (int lane = 0; lane < W; lane++)
        found |= mask[lane];
    return found != 0;
}

inline Pack numbers_of(Mask whole) { return __builtin_convertvector(whole, Pack); }

} // namespace cvxfold
