// Numbers of one instance: what packs are where they hold one.
#pragma once

#include "standard.hpp"

namespace cvxfold {

constexpr int W = 1;

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

inline Mask::Mask(Value a) : bits(bits_of(a.number)) {}

inline Value splat(double value) { return value; }

inline Value fused(Value a, Value b, Value c) { return fused(a.number, b.number, c.number); }

inline Value select(Mask where, Value yes, Value no) { return where.bits ? yes.number : no.number; }

inline Mask all() { return Mask(int64_t(-1)); }

inline bool any(Mask mask) { return mask.bits != 0; }

inline Value numbers_of(Mask whole) { return static_cast<double>(whole.bits); }

} // namespace cvxfold
