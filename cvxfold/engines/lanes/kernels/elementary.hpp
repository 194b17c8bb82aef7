// exp and log of packs, to about one unit in the last place.
#pragma once

#include "pack.hpp"

namespace cvxfold {

// e^x for |x| <= 708; smaller and larger x count as the ends. NaN stays.
// x = k log 2 + r with |r| <= log(2)/2, and a Taylor polynomial of degree 13 in r.
inline Value exp(Value x) {
    const double high = 6.93147180369123816490e-01, low = 1.90821492927058770002e-10;
    const double rounder = 6755399441055744.0; // 1.5 * 2^52: adding it rounds to an integer in the last bits
    x = select(x > splat(708), splat(708), select(x < splat(-708), splat(-708), x));
    Value shifted = fused(x, splat(1.4426950408889634074), splat(rounder));
    Mask k = (Mask)shifted - (Mask)splat(rounder);
    Value whole = shifted - rounder;
    Value r = fused(-whole, splat(low), fused(-whole, splat(high), x));
    const double terms[] = {2.08767569878681e-09,
                            2.505210838544172e-08,
                            2.755731922398589e-07,
                            2.7557319223985893e-06,
                            2.48015873015873e-05,
                            1.984126984126984e-04,
                            1.388888888888889e-03,
                            8.333333333333333e-03,
                            4.1666666666666664e-02,
                            1.6666666666666666e-01,
                            0.5,
                            1.0,
                            1.0};
    Value p = splat(1.6059043836821613e-10);
    for (double term : terms)
        p = fused(p, r, splat(term));
    Value power = (Value)((k + 1023) << 52);
    return select(x == x, p * power, x);
}

// 2^k for 2^k <= x < 2^(k + 1), x >= 0; 1 where x is zero or next to it. Infinity and NaN stay no numbers.
inline Value leading_power(Value x) {
    const Value power = (Value)((Mask)x & 0x7ff0000000000000LL);
    return select(power > 0.0, power, select(x == x, splat(1), x));
}

// log x for positive, normal x.
// x = 2^k m with m near 1, and log m = 2 atanh(f), f = (m - 1)/(m + 1).
inline Value log(Value x) {
    const double high = 6.93147180369123816490e-01, low = 1.90821492927058770002e-10;
    Mask bits = (Mask)x;
    Mask exponent = (bits >> 52) - 1023;
    Value m = (Value)((bits & 0x000fffffffffffffLL) | 0x3ff0000000000000LL);
    Mask big = m > splat(1.4142135623730951);
    m = select(big, 0.5 * m, m);
    exponent = exponent - big; // a mask is -1
    Value k = numbers_of(exponent);
    Value f = (m - 1.0) / (m + 1.0), square = f * f;
    Value series = splat(1.0 / 23);
    for (int odd = 21; odd >= 3; odd -= 2)
        series = fused(series, square, splat(1.0 / odd));
    return fused(k, splat(high), 2.0 * f + fused(2.0 * f, square * series, k * low));
}

// log(e^a + e^b); a or b may be -infinity.
inline Value log_of_sum(Value a, Value b) {
    Value top = max(a, b), gap = min(a, b) - top; // NaN where both are -infinity, which does not occur
    return top + log(1.0 + exp(gap));
}

inline Value log_or_minus_infinity(Value x) {
    Mask positive = x > splat(2.3e-308);
    return select(positive, log(select(positive, x, splat(1))), splat(-infinite()));
}

} // namespace cvxfold
