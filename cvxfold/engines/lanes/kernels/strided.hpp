// Packs of one instance each, whose neighbours lie between them: what a thread of a GPU works on.
//
// STRIDE threads, one instance each, share memory in which a number of one is followed by that of the next. A
// thread's array of packs is the same memory from its own place on: only the first number of what a pack
// spans is its own, and nothing else is ever read, written or copied. So the kernels' text stands as it is.
#pragma once

#include "standard.hpp"

#ifndef CVXFOLD_AHEAD
#define CVXFOLD_AHEAD 8
#endif

namespace cvxfold {

constexpr int W = 1, LANES = CVXFOLD_STRIDE, AHEAD = CVXFOLD_AHEAD;

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
