// Eigenvalues and eigenvectors of a symmetric matrix: Householder's reflections to tridiagonal form, then the
// implicit QL method (Golub and Van Loan, "Matrix computations", sections 8.3.1 and 8.3.3; Dubrulle, Martin
// and Wilkinson, "The implicit QL algorithm", 1968). What it comes to depends on the matrix alone.
//
// 1. X = Q T Q', a reflection for each row of X: their vectors take the row's place.
// 2. Q, from the last reflection to the first.
// 3. An entry beside T's diagonal after the other is made small by rotations, which Q' takes: all of a sweep
//    are found first, as each waits for the last one, and applied then, as no column waits for another.
#pragma once

#include "dense.hpp"
#include "product.hpp"

namespace cvxfold {

namespace tridiagonal {

const double SMALL = 4e-17;                   // of the matrix's norm: what is left beside the diagonal
const int MOST_SWEEPS = 30;                   // for an entry
const int LEAST_ORDER = 5;                    // of a matrix that the vectors below have room beside
enum { BESIDE, COSINE, SINE, PART, VECTORS }; // of `order` packs each

// The symmetric matrix X (order, order) becomes the reflections' vectors; 1.
//
// Args: d: (order), T's diagonal. vectors: (VECTORS, order), of which BESIDE is what stands beside it.
CVXFOLD_LONG void reduce(int order, Pack *X, Pack *d, Pack *vectors) {
    Pack *e = vectors + BESIDE * order, *p = vectors + PART * order;
    for (int k = 0; k + 2 < order; k++) {
        const int rest = order - k - 1;
        Pack *v = X + k * order + k + 1, *inner = X + (k + 1) * (order + 1);
        const Value first = v[0], squares = squared_norm(v + 1, rest - 1);
        const Mask turns = squares > 0.0;
        const Value norm = sqrt(fused(first, first, squares)), size = norm + abs(first);
        const Value factor = select(turns, 1.0 / select(turns, norm * size, splat(1)), Value{});
        const Value sign = select(first < 0.0, splat(-1), splat(1));
        one_by_one([&] {
            d[k] = X[k * order + k];
            e[k] = select(turns, -(sign * norm), first);
            v[0] = sign * size;
            X[k * order + k] = factor;
        });
        products(rest, v, 1, 1, inner, order, rest, [&](int, int j, Value sum) { p[j] = factor * sum; });
        const Value half = 0.5 * factor * dot(p, v, rest);
        fill(p, rest, [&](int j) { return fused(-half, v[j], p[j]); });
        each(rest, [&](int i) {
            Pack *CVXFOLD_RESTRICT row = inner + i * order;
            const Value of_v = v[i], of_p = p[i];
            CVXFOLD_INDEPENDENT
            for (int j = 0; j < rest; j++)
                row[j] = fused(-of_v, p[j], fused(-of_p, v[j], row[j]));
        });
    }
    one_by_one([&] {
        const int last = order - 1;
        d[last - 1] = X[(last - 1) * (order + 1)];
        d[last] = X[last * (order + 1)];
        e[last - 1] = X[last * order + last - 1];
        e[last] = Value{};
    });
}

// Q of the reflections in X; 2.
CVXFOLD_LONG void accumulate(int order, const Pack *X, Pack *Q, Pack *vectors) {
    Pack *p = vectors + PART * order;
    set_identity(order, Q);
    for (int k = order - 3; k >= 0; k--) {
        const int rest = order - k - 1;
        const Pack *v = X + k * order + k + 1;
        const Value factor = X[k * order + k];
        Pack *inner = Q + (k + 1) * (order + 1);
        products(rest, v, 1, 1, inner, order, rest, [&](int, int j, Value sum) { p[j] = factor * sum; });
        each(rest, [&](int i) {
            Pack *CVXFOLD_RESTRICT row = inner + i * order;
            const Value of_v = v[i];
            CVXFOLD_INDEPENDENT
            for (int j = 0; j < rest; j++)
                row[j] = fused(-of_v, p[j], row[j]);
        });
    }
}

// The rotations of a sweep from row `top` of T down to row `low`, of lanes with low < end: theirs begin at
// row `end`, below an entry that is small already. Where a lane has none, both cosine and sine are zero.
// `at_end` is T's entry there.
inline void sweep(int low, int top, Value end, Value at_end, Pack *d, Pack *e, Pack *c, Pack *s) {
    const Mask begins = end > splat(low);
    const Value beside = select(begins, e[low], splat(1)), half = (d[low + 1] - d[low]) / (2.0 * beside);
    const Value shift = half + select(half < 0.0, -sqrt(fused(half, half, splat(1))),
                                      sqrt(fused(half, half, splat(1)))); // Wilkinson's
    Value cosine = splat(1), sine = splat(1), moved{}, g = at_end - d[low] + beside / shift;
    for (int i = top - 1; i >= low; i--) {
        const Mask turns = begins & (end > splat(i));
        const Value f = sine * e[i], b = cosine * e[i];
        const Value root = sqrt(fused(f, f, g * g));
        const Mask some = root > 0.0;
        const Value inverse = 1.0 / select(some, root, splat(1));
        const Value co = select(some, g * inverse, splat(1)), si = f * inverse;
        e[i + 1] = select(turns & (end > splat(i + 1)), root, e[i + 1]);
        const Value diagonal = d[i + 1] - moved, r = fused(d[i] - diagonal, si, 2.0 * (co * b));
        const Value by = si * r;
        d[i + 1] = select(turns, diagonal + by, d[i + 1]);
        c[i] = select(turns, co, Value{});
        s[i] = select(turns, si, Value{});
        g = select(turns, fused(co, r, -b), g);
        moved = select(turns, by, moved);
        cosine = select(turns, co, cosine), sine = select(turns, si, sine);
    }
    d[low] = select(begins, d[low] - moved, d[low]);
    e[low] = select(begins, g, e[low]);
}

// COUNT times Number columns of V by the rotations of a sweep.
template <int COUNT, typename Number>
inline void turn_columns(int order, int low, int top, const Pack *c, const Pack *s, Pack *V) {
    constexpr int WIDE = sizeof(Number) > sizeof(Value) ? SIDE : 1;
    Number below[COUNT];
    for (int k = 0; k < COUNT; k++)
        load(V + top * order + k * WIDE, below[k]);
    for (int i = top - 1; i >= low; i--) {
        Pack *row = V + i * order;
        Number cosine, sine;
        spread(c[i], cosine);
        spread(s[i], sine);
        for (int k = 0; k < COUNT; k++) {
            Number own, turned, next;
            load(row + k * WIDE, own);
            turned = fused(sine, own, cosine * below[k]);
            next = fused(cosine, own, -(sine * below[k]));
            if constexpr (W > 1) {
                const Mask idle = (c[i] == 0.0) & (s[i] == 0.0);
                turned = select(idle, below[k], turned);
                next = select(idle, own, next);
            }
            store(row + order + k * WIDE, turned);
            below[k] = next;
        }
    }
    for (int k = 0; k < COUNT; k++)
        store(V + low * order + k * WIDE, below[k]);
}

// V's rows `low` to `top` by the rotations of a sweep.
inline void turn_rows(int order, int low, int top, const Pack *c, const Pack *s, Pack *V) {
    if constexpr (GROUP > 1) {
        each(order, [&](int k) { turn_columns<1, Value>(order, low, top, c, s, V + k); });
        return;
    }
    int k = 0;
    for (; k + 3 * SIDE <= order; k += 3 * SIDE)
        turn_columns<3, Side>(order, low, top, c, s, V + k);
    for (; k + SIDE <= order; k += SIDE)
        turn_columns<1, Side>(order, low, top, c, s, V + k);
    for (; k < order; k++)
        turn_columns<1, Value>(order, low, top, c, s, V + k);
}

// Eigenvalues w (order) of X (order, order), which is lost, and eigenvectors, the columns of U (order,
// order). V: (order^2). vectors: (VECTORS, order).
CVXFOLD_LONG void eigen(int order, Pack *X, Pack *U, Pack *w, Pack *V, Pack *vectors) {
    Pack *e = vectors + BESIDE * order;
    Pack *c = vectors + COSINE * order, *s = vectors + SINE * order;
    const Value tiny = SMALL * sqrt(squared_norm(X, order * order));
    const Mask valid = finite(tiny);
    reduce(order, X, w, vectors);
    accumulate(order, X, U, vectors);
    transpose(order, U, V);
    for (int low = 0; low + 1 < order; low++) // 3
        for (int count = 0; count < MOST_SWEEPS; count++) {
            Value end = splat(order - 1), at_end = w[order - 1];
            for (int i = order - 2; i >= low; i--) {
                const Mask small = abs(e[i]) <= tiny;
                end = select(small, splat(i), end);
                at_end = select(small, w[i], at_end);
            }
            end = select(valid, end, splat(low));
            int top = low;
            for (int lane = 0; lane < W; lane++)
                top = end[lane] > top ? static_cast<int>(end[lane]) : top;
            if (top == low)
                break;
            one_by_one([&] { sweep(low, top, end, at_end, w, e, c, s); });
            turn_rows(order, low, top, c, s, V);
        }
    transpose(order, V, U);
}

} // namespace tridiagonal
} // namespace cvxfold
