// Vectors and A's rows in the frames of the cones: Q'a, Q a and Q'A.
#pragma once

#include "cones.hpp"

namespace cvxfold {

// The frames' own scratch, behind them.
inline Pack *frame_scratch(const Shape &S, Pack *frame) { return frame + S.frame - cone_scratch(S); }

// out = Q'a (inward) or Q a, (m), on the rows of curved cones; the others are copied. May work in place.
template <bool inward> inline void turn_frame(const Shape &S, Pack *frame, const Pack *a, Pack *out) {
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
    for (; at < S.m; at += 3, frame += FRAME3) {
        const Value a0 = a[at], a1 = a[at + 1], a2 = a[at + 2];
        const int across = inward ? 3 : 1, along = inward ? 1 : 3;
        for (int i = 0; i < 3; i++) {
            const Pack *row = frame + across * i;
            out[at + i] = row[0] * a0 + row[along] * a1 + row[2 * along] * a2;
        }
    }
}

inline void into_frame(const Shape &S, Pack *frame, const Pack *a, Pack *out) {
    turn_frame<true>(S, frame, a, out);
}

inline void out_of_frame(const Shape &S, Pack *frame, const Pack *a, Pack *out) {
    turn_frame<false>(S, frame, a, out);
}

// Q'A, of curved cones whose rows share one pattern. column: (m), for the rows of one cone in one column.
inline void rotate_A(const Shape &S, Pack *frame, const Pack *A, Pack *rotated, Pack *column) {
    Pack *scratch = frame_scratch(S, frame);
    const auto each_column = [&](int row, int size, auto rotate) {
        for (int e = 0; e < S.A_start[row + 1] - S.A_start[row]; e++) {
            fill(column, size, [&](int i) { return A[S.A_start[row + i] + e]; });
            rotate();
            for (int i = 0; i < size; i++)
                rotated[S.A_start[row + i] + e] = column[i];
        }
    };
    int at = S.separable();
    fill(rotated, S.A_start[at], [&](int e) { return A[e]; });
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c];
        each_column(at, size, [&] { second_order::into_frame(size, frame, column, column); });
        frame += second_order::frame_size(size);
        at += size;
    }
    at = each_semidefinite(S, at, frame, [&](int order, int row, Pack *U) {
        each_column(row, semidefinite::rows(order),
                    [&] { semidefinite::turn_triangle(order, U, true, column, column, scratch); });
        frame += order * order;
    });
    for (; at < S.m; at += 3, frame += FRAME3) {
        const int e0 = S.A_start[at], e1 = S.A_start[at + 1], e2 = S.A_start[at + 2];
        for (int e = 0; e < e1 - e0; e++) {
            const Value a0 = A[e0 + e], a1 = A[e1 + e], a2 = A[e2 + e];
            for (int i = 0; i < 3; i++) {
                const Pack *axis = frame + 3 * i;
                rotated[S.A_start[at + i] + e] = axis[0] * a0 + axis[1] * a1 + axis[2] * a2;
            }
        }
    }
}

} // namespace cvxfold
