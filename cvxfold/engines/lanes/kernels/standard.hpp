// Integers and the few numbers that the kernels take from the language's library, also where there is none: a
// compiler for GPUs at run time.
#pragma once

#ifdef __CUDACC_RTC__
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <cmath>
#include <cstddef>
#include <cstdint>
#endif

// What is long and called from several places: inlined where compilers find it worth it; a call on a GPU,
// where assembling what is written out several times takes most of a compilation.
#ifdef __CUDACC_RTC__
#define CVXFOLD_LONG __noinline__
#define CVXFOLD_ROLLED _Pragma("unroll 1")
#else
#define CVXFOLD_LONG inline
#define CVXFOLD_ROLLED
#endif

namespace cvxfold {

#ifdef __CUDACC_RTC__
inline double infinite() { return __longlong_as_double(0x7ff0000000000000LL); }
inline double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }
inline double square_root(double a) { return ::sqrt(a); }
inline int64_t bits_of(double a) { return __double_as_longlong(a); }
inline double of_bits(int64_t bits) { return __longlong_as_double(bits); }
#else
inline double infinite() { return __builtin_inf(); }
inline double not_a_number() { return __builtin_nan(""); }
inline double square_root(double a) { return __builtin_sqrt(a); }
inline int64_t bits_of(double a) {
    int64_t bits;
    __builtin_memcpy(&bits, &a, sizeof bits);
    return bits;
}
inline double of_bits(int64_t bits) {
    double a;
    __builtin_memcpy(&a, &bits, sizeof a);
    return a;
}
#endif

// a b + c, rounded once where the processor does that at once: everywhere the same, since nothing else is
// contracted (-ffp-contract=off), so that an answer's bits do not depend on how a compiler sees a text.
#ifdef __CUDACC_RTC__
inline double fused(double a, double b, double c) { return ::fma(a, b, c); }
#elif defined(__FMA__) || defined(__ARM_FEATURE_FMA)
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
inline double fused(double a, double b, double c) { return a * b + c; }
#endif

template <typename T> inline T least(T a, T b) { return b < a ? b : a; }

} // namespace cvxfold
