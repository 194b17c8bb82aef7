// Vectors and A's rows in the frames of the cones: Q'a, Q a and Q'A.
#pragma once

#include "cones.hpp"

namespace cvxfold {

// The frames' own scratch, behind them.
inline Pack *frame_scratch(const Shape &S, Pack *frame) { return frame + S.frame - cone_scratch(S); }

// out = Q'a (inward) or Q a, (m), on the rows of curved cones; the others are copied. May work in place.
template <bool inward> CVXFOLD_LONG void turn_frame(const Shape &S, Pack *frame, const Pack *a, Pack *out) {
    Pack *scratch = frame_scratch(S, frame);
    fill(out, S.separable(), [&](int i) { return a[i]; });
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++) {
        if (inward)
            second_order::into_frame(S.sizes[c], frame, a + at, out + at);
        else
            second_order::out_of_frame(S.sizes[c], frame, a + at, out + at);
        frame += second_order::frame_size(S.sizes[c]);
        at += S.sizes[c];
    }
    at = each_semidefinite(S, at, frame, [&](int order, int row, Pack *U) {
        semidefinite::turn_triangle(order, U, inward, a + row, out + row, scratch);
        frame += order * order;
    });
    each((S.m - at) / 3, [&](int c) {
        const int row = at + 3 * c;
        const Pack *Q = frame + FRAME3 * c;
        const Value a0 = a[row], a1 = a[row + 1], a2 = a[row + 2];
        const int across = inward ? 3 : 1, along = inward ? 1 : 3;
        for (int i = 0; i < 3; i++) {
            const Pack *of = Q + across * i;
            out[row + i] = fused(of[2 * along], a2, fused(of[along], a1, of[0] * a0));
        }
    });
}

inline void into_frame(const Shape &S, Pack *frame, const Pack *a, Pack *out) {
    turn_frame<true>(S, frame, a, out);
}

inline void out_of_frame(const Shape &S, Pack *frame, const Pack *a, Pack *out) {
    turn_frame<false>(S, frame, a, out);
}

// The lower triangle of V'X V by rows, (order, order), of column e of a semidefinite cone's rows of A, X. V:
// (order, order). half: (order).
CVXFOLD_LONG void image_of_column(const Shape &S, const MatrixRows &M, int e, const Pack *A, const Pack *V,
                                  Pack *CVXFOLD_RESTRICT half, Pack *CVXFOLD_RESTRICT image) {
    const int order = M.order, end = S.column_start[M.columns + e + 1];
    clear(image, order * order);
    for (int k = S.column_start[M.columns + e]; k < end;) {
        const int i = S.in_column[k].i;
        clear(half, order);
        for (; k < end && S.in_column[k].i == i; k++) { // a row of X
            const MatrixRows::Entry &own = S.in_column[k];
            const Value entry = A[own.entry] * (own.j == i ? 0.5 : 1 / semidefinite::ROOT_TWO);
            const Pack *row = V + own.j * order;
            fill(half, order, [&](int b) { return fused(entry, row[b], half[b]); });
        }
        const Pack *row = V + i * order;
        each(order, [&](int a) {
            Pack *CVXFOLD_RESTRICT to = image + a * order;
            const Value left = row[a], right = half[a];
            for (int b = 0; b <= a; b++)
                to[b] = fused(left, half[b], fused(right, row[b], to[b]));
        });
    }
}

// Q'A, of curved cones whose rows share one pattern, where K has them.
CVXFOLD_LONG void rotate_A(const Shape &S, Pack *frame, const Pack *A, Pack *rotated) {
    Pack *image = frame_scratch(S, frame);
    const auto entries = [&](int row) { return S.A_start[row + 1] - S.A_start[row]; };
    int at = S.separable();
    fill(rotated, S.A_start[at], [&](int e) { return A[e]; });
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c], first = S.A_start[at], count = entries(at);
        each(count, [&](int e) {
            second_order::into_frame_by<ByOne>(
                size, frame, [&](int i) -> Value { return A[first + i * count + e]; },
                [&](int i, Value value) { rotated[first + i * count + e] = value; });
        });
        frame += second_order::frame_size(size);
        at += size;
    }
    for (int c = 0; c < S.semidefinite; c++) {
        const MatrixRows &M = S.matrices[c];
        const int order = M.order;
        for (int e = 0; e < (M.pairs < 0 ? M.count : 0); e++) {
            image_of_column(S, M, e, A, frame, image + order * order, image);
            each(order, [&](int j) {
                Pack *column = rotated + M.first + semidefinite::column_begins(order, j) * M.count + e;
                column[0] = image[j * order + j];
                for (int i = j + 1; i < order; i++)
                    column[(i - j) * M.count] = image[i * order + j] * semidefinite::ROOT_TWO;
            });
        }
        frame += order * order;
        at += semidefinite::rows(order);
    }
    for (; at < S.m; at += 3, frame += FRAME3) {
        const int first = S.A_start[at], count = entries(at);
        each(count, [&](int e) {
            const Value a0 = A[first + e], a1 = A[first + count + e], a2 = A[first + 2 * count + e];
            for (int i = 0; i < 3; i++) {
                const Pack *axis = frame + 3 * i;
                rotated[first + i * count + e] = fused(axis[2], a2, fused(axis[1], a1, axis[0] * a0));
            }
        });
    }
}

} // namespace cvxfold
