// Products of dense matrices, block by block: each number is loaded once for several of the product's.
#pragma once

#include "rows.hpp"

namespace cvxfold {

// Numbers of a row that are worked on at once.
#if CVXFOLD_QUADS
typedef Quad Side;
inline void load(const Pack *from, Quad &to) { to = quad_at(from); }
inline void store(Pack *to, const Quad &quad) { put_quad(to, quad); }
inline void spread(Value value, Quad &to) { to = quad_of(value); }
inline Value part(const Quad &quad, int k) { return quad[k]; }
#else
typedef Value Side;
#endif
constexpr int SIDE = CVXFOLD_QUADS ? SUMS : 1;

inline void load(const Pack *from, Value &to) { to = *from; }
inline void store(Pack *to, const Value &value) { *to = value; }
inline void spread(Value value, Value &to) { to = value; }
inline Value part(const Value &value, int) { return value; }

// Of order `order`, into X.
inline void set_identity(int order, Pack *X) {
    fill(X, order * order, [&](int i) { return splat(i % (order + 1) == 0 ? 1 : 0); });
}

// Of a square matrix.
inline void transpose(int order, const Pack *from, Pack *to) {
    each(order, [&](int i) {
        for (int j = 0; j < order; j++)
            to[i * order + j] = from[j * order + i];
    });
}

// ROWS x COLUMNS of the sums over k < depth of A[k a_stride + i] B[k b_stride + j], the latter Numbers.
template <int ROWS, int COLUMNS, typename Number, typename Visit>
inline void product_block(int depth, const Pack *A, int a_stride, const Pack *B, int b_stride, Visit visit) {
    constexpr int WIDE = sizeof(Number) > sizeof(Value) ? SIDE : 1;
    Number sum[ROWS][COLUMNS] = {};
    for (int k = 0; k < depth; k++, A += a_stride, B += b_stride) {
        Number right[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            load(B + c * WIDE, right[c]);
        for (int r = 0; r < ROWS; r++) {
            Number left;
            spread(A[r], left);
            for (int c = 0; c < COLUMNS; c++)
                sum[r][c] = fused(left, right[c], sum[r][c]);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++)
            for (int k = 0; k < WIDE; k++)
                visit(r, c * WIDE + k, part(sum[r][c], k));
}

// The rows of a product from i on, of which `limit` columns are wanted.
template <int ROWS, typename Visit>
inline void product_rows(int depth, const Pack *A, int a_stride, const Pack *B, int b_stride, int columns,
                         int limit, Visit visit) {
    for (int j = 0; j < limit;) {
        const auto at = [&](int r, int c, Value sum) { visit(r, j + c, sum); };
        if (j + 2 * SIDE <= columns) {
            product_block<ROWS, 2, Side>(depth, A, a_stride, B + j, b_stride, at);
            j += 2 * SIDE;
        } else if (SIDE > 1 && j + SIDE <= columns) {
            product_block<ROWS, 1, Side>(depth, A, a_stride, B + j, b_stride, at);
            j += SIDE;
        } else {
            product_block<ROWS, 1, Value>(depth, A, a_stride, B + j, b_stride, at);
            j++;
        }
    }
}

// Calls visit(i, j, (A'B)_ij) for i < rows and j < columns, or j <= i alone, for matrices of `depth` rows.
// Sums begin with the first row and take one after the other.
template <bool lower = false, typename Visit>
inline void products(int depth, const Pack *A, int a_stride, int rows, const Pack *B, int b_stride,
                     int columns, Visit visit) {
    if constexpr (GROUP > 1) {
        each(rows * columns, [&](int e) {
            const int i = e / columns, j = e % columns;
            if (lower && j > i)
                return;
            Value sum{};
            for (int k = 0; k < depth; k++)
                sum = fused(A[k * a_stride + i], B[k * b_stride + j], sum);
            visit(i, j, sum);
        });
    } else {
        constexpr int ROWS = 4;
        for (int i = 0; i < rows;) {
            const auto at = [&](int r, int j, Value sum) {
                if (!lower || j <= i + r)
                    visit(i + r, j, sum);
            };
            const int limit = lower && i + ROWS < columns ? i + ROWS : columns;
            if (i + ROWS <= rows) {
                product_rows<ROWS>(depth, A + i, a_stride, B, b_stride, columns, limit, at);
                i += ROWS;
            } else {
                product_rows<1>(depth, A + i, a_stride, B, b_stride, columns, limit, at);
                i++;
            }
        }
    }
}

} // namespace cvxfold
