// What this module and this CPU are. Compiled for the oldest x86-64, since it runs before anything is known
// of the CPU.
#include "api.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

namespace {

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;

    // Zeros for a leaf that the CPU does not have.
    explicit Registers(unsigned leaf) { __get_cpuid_count(leaf, 0, &a, &b, &c, &d); }
};

bool has(unsigned value, unsigned mask) { return (value & mask) == mask; }

template <class... Bits> unsigned bits(Bits... positions) { return ((1u << positions) | ...); }

// The registers whose contents the operating system saves when it switches threads.
unsigned saved_registers() {
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

int level() {
    // The bits of the levels of the x86-64 psABI, which -march=x86-64-v2, -v3 and -v4 stand for.
    const Registers basic(1), extended(7), more(0x80000001u);
    const unsigned sse3 = 0, ssse3 = 9, fma = 12, cx16 = 13, sse41 = 19, sse42 = 20, movbe = 22, popcnt = 23;
    const unsigned osxsave = 27, avx = 28, f16c = 29, lahf = 0, lzcnt = 5, bmi1 = 3, avx2 = 5, bmi2 = 8;
    const unsigned avx512f = 16, avx512dq = 17, avx512cd = 28, avx512bw = 30, avx512vl = 31;
    const unsigned ymm = bits(1u, 2u), zmm = bits(1u, 2u, 5u, 6u, 7u);
    if (!has(basic.c, bits(sse3, ssse3, cx16, sse41, sse42, popcnt)) || !has(more.c, bits(lahf)))
        return 0;
    if (!has(basic.c, bits(fma, movbe, osxsave, avx, f16c)) || !has(extended.b, bits(bmi1, avx2, bmi2)) ||
        !has(more.c, bits(lzcnt)) || !has(saved_registers(), ymm))
        return 2;
    if (!has(extended.b, bits(avx512f, avx512dq, avx512cd, avx512bw, avx512vl)) ||
        !has(saved_registers(), zmm))
        return 3;
    return 4;
}

} // namespace

CVXFOLD_API int cvxfold_level() { return level(); }
#else
CVXFOLD_API int cvxfold_level() { return 0; }
#endif

CVXFOLD_API int cvxfold_width() { return CVXFOLD_WIDTH; }

CVXFOLD_API const char *cvxfold_sources() { return CVXFOLD_SOURCES; }
