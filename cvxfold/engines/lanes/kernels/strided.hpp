// Packs of one instance each, whose neighbours lie between them: what a thread of a GPU works on.
//
// STRIDE threads, one instance each, share memory in which a number of one is followed by that of the next. A
// thread's array of packs is the same memory from its own place on: only the first number of what a pack
// spans is its own, and nothing else is ever read, written or copied. So the kernels' text stands as it is.
#pragma once

#include "standard.hpp"

namespace cvxfold {

constexpr int WARP = 32; // threads

constexpr int W = 1, LANES = CVXFOLD_STRIDE, TOGETHER = 1;

// Threads that work on one instance together: all of them run through everything, and share the loops over
// memory (loops.hpp). Thread t of a warp is number t / LANES of instance t % LANES.
constexpr int GROUP = WARP / LANES, AHEAD = GROUP > 1 ? 4 : 8;

inline int number_in_group() { return GROUP > 1 ? threadIdx.x / LANES : 0; }

inline unsigned group_mask() {
    unsigned mask = 0;
    for (int k = 0; k < GROUP; k++)
        mask |= 1u << (k * LANES);
    return mask << (threadIdx.x % LANES);
}

// What one has written, the others see from here on.
inline void together() {
    if (GROUP > 1)
        __syncwarp(group_mask());
}

inline double of_partner(double value, int distance) {
    return __shfl_xor_sync(group_mask(), value, distance * LANES);
}

// Whether something holds for all of a group, where what each sees may differ: a clock.
inline bool agreed(bool mine) { return GROUP > 1 ? __all_sync(group_mask(), mine) : mine; }

struct Value;

struct Mask {
    int64_t bits;

    Mask() : bits(0) {}
    explicit Mask(int64_t bits) : bits(bits) {}
    explicit Mask(Value a);
    static Mask of(bool holds) { return Mask(holds ? int64_t(-1) : int64_t(0)); }

    int64_t &operator[](int) { return bits; }
    int64_t operator[](int) const { return bits; }
    Mask operator~() const { return Mask(~bits); }
    Mask &operator&=(Mask other) { return *this = Mask(bits & other.bits); }
    Mask &operator|=(Mask other) { return *this = Mask(bits | other.bits); }
    friend Mask operator&(Mask a, Mask b) { return Mask(a.bits & b.bits); }
    friend Mask operator&(Mask a, int64_t b) { return Mask(a.bits & b); }
    friend Mask operator|(Mask a, Mask b) { return Mask(a.bits | b.bits); }
    friend Mask operator|(Mask a, int64_t b) { return Mask(a.bits | b); }
    friend Mask operator+(Mask a, int64_t b) { return Mask(a.bits + b); }
    friend Mask operator-(Mask a, Mask b) { return Mask(a.bits - b.bits); }
    friend Mask operator-(Mask a, int64_t b) { return Mask(a.bits - b); }
    friend Mask operator<<(Mask a, int count) { return Mask(a.bits << count); }
    friend Mask operator>>(Mask a, int count) { return Mask(a.bits >> count); }
};

// A number alone.
struct Value {
    double number;

    Value() : number(0) {}
    Value(double value) : number(value) {}
    explicit Value(Mask mask) : number(of_bits(mask.bits)) {}

    double &operator[](int) { return number; }
    double operator[](int) const { return number; }
    Value operator-() const { return -number; }
    void operator+=(Value b) { number += b.number; }
    void operator-=(Value b) { number -= b.number; }
    void operator*=(Value b) { number *= b.number; }
    void operator/=(Value b) { number /= b.number; }
    friend Value operator+(Value a, Value b) { return a.number + b.number; }
    friend Value operator-(Value a, Value b) { return a.number - b.number; }
    friend Value operator*(Value a, Value b) { return a.number * b.number; }
    friend Value operator/(Value a, Value b) { return a.number / b.number; }
    friend Mask operator<(Value a, Value b) { return Mask::of(a.number < b.number); }
    friend Mask operator<=(Value a, Value b) { return Mask::of(a.number <= b.number); }
    friend Mask operator>(Value a, Value b) { return Mask::of(a.number > b.number); }
    friend Mask operator>=(Value a, Value b) { return Mask::of(a.number >= b.number); }
    friend Mask operator==(Value a, Value b) { return Mask::of(a.number == b.number); }
    friend Mask operator!=(Value a, Value b) { return Mask::of(a.number != b.number); }
};

// A number in memory, with those of the neighbours behind it.
struct Pack : Value {
    double neighbours[LANES - 1];

    Pack() {}
    Pack(double value) : Value(value) {}
    Pack(Value value) : Value(value) {}
    explicit Pack(Mask mask) : Value(mask) {}
    Pack(const Pack &other) : Value(other.number) {}
    Pack &operator=(const Pack &other) {
        number = other.number;
        return *this;
    }
    Pack &operator=(Value value) {
        number = value.number;
        return *this;
    }
    Pack &operator=(double value) {
        number = value;
        return *this;
    }
};

inline Mask::Mask(Value a) : bits(bits_of(a.number)) {}

inline Value splat(double value) { return value; }

inline Value select(Mask where, Value yes, Value no) { return where.bits ? yes.number : no.number; }

inline Mask all() { return Mask(int64_t(-1)); }

inline bool any(Mask mask) { return mask.bits != 0; }

inline Value numbers_of(Mask whole) { return static_cast<double>(whole.bits); }

} // namespace cvxfold
