// The product of all cones: projections, and the frames Q in which the derivative D = Q diag(lambda) Q' is
// diagonal.
#pragma once

#include "exponential.hpp"
#include "power.hpp"
#include "second_order.hpp"
#include "shape.hpp"

namespace cvxfold {

const int FRAME3 = 9; // packs of the frame of a cone in R^3

// s = Pi_K(u), (m). `roots` (exponential + power) are where root finding begins, and become what it comes to
// only where `keep` is: a point that is looked at once more, for a neighbour's sake, must give the same bits.
inline void project(const Shape &S, Pack *roots, const Pack *u, Pack *s, Mask keep) {
    for (int i = 0; i < S.zero; i++)
        s[i] = Pack{};
    for (int i = S.zero; i < S.separable(); i++)
        s[i] = select(u[i] <= 0.0, Pack{}, u[i]);
    int at = S.separable();
    for (int c = 0; c < S.second_order; at += S.sizes[c++])
        second_order::project(S.sizes[c], u + at, s + at);
    for (int c = 0; c < S.exponential + S.power; c++, at += 3) {
        Pack root = roots[c];
        if (c < S.exponential)
            exponential::look(u[at], u[at + 1], u[at + 2], root, s + at, nullptr, false);
        else
            power::look(S.alpha[c - S.exponential], u[at], u[at + 1], u[at + 2], root, s + at, nullptr,
                        false);
        roots[c] = select(keep, root, roots[c]);
    }
}

inline void keep_frame(const Frame3 &look, Mask mask, Pack *lambda, Pack *frame) {
    for (int i = 0; i < 3; i++)
        lambda[i] = select(mask, look.lambda[i], lambda[i]);
    for (int i = 0; i < FRAME3; i++)
        frame[i] = select(mask, look.axes[i], frame[i]);
}

// lambda (m) and the frames (S.frame) at u, where `mask` is; `margin` (m), where not null, becomes the
// distance of each row's cone from the nearest point without a derivative, infinite for equalities.
inline void look(const Shape &S, Pack *roots, const Pack *u, Mask mask, Pack *lambda, Pack *frame,
                 Pack *margin) {
    for (int i = 0; i < S.separable(); i++) {
        Pack active = i >= S.zero ? select(u[i] > 0.0, splat(1), Pack{}) : Pack{};
        lambda[i] = select(mask, active, lambda[i]);
        if (margin)
            margin[i] = i >= S.zero ? abs(u[i]) : splat(__builtin_inf());
    }
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c];
        Pack nearest = second_order::look(size, u + at, mask, lambda + at, frame);
        for (int i = 0; margin && i < size; i++)
            margin[at + i] = nearest;
        frame += second_order::frame_size(size);
        at += size;
    }
    for (int c = 0; c < S.exponential + S.power; c++, at += 3, frame += FRAME3) {
        Frame3 seen;
        Pack projection[3], root = roots[c];
        if (c < S.exponential)
            exponential::look(u[at], u[at + 1], u[at + 2], root, projection, &seen, margin != nullptr);
        else
            power::look(S.alpha[c - S.exponential], u[at], u[at + 1], u[at + 2], root, projection, &seen,
                        margin != nullptr);
        roots[c] = select(mask, root, roots[c]);
        keep_frame(seen, mask, lambda + at, frame);
        for (int i = 0; margin && i < 3; i++)
            margin[at + i] = seen.margin;
    }
}

// out = Q'a, (m). May work in place.
inline void into_frame(const Shape &S, const Pack *frame, const Pack *a, Pack *out) {
    for (int i = 0; i < S.separable(); i++)
        out[i] = a[i];
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++) {
        second_order::into_frame(S.sizes[c], frame, a + at, out + at);
        frame += second_order::frame_size(S.sizes[c]);
        at += S.sizes[c];
    }
    for (; at < S.m; at += 3, frame += FRAME3) {
        const Pack a0 = a[at], a1 = a[at + 1], a2 = a[at + 2];
        for (int i = 0; i < 3; i++)
            out[at + i] = frame[3 * i] * a0 + frame[3 * i + 1] * a1 + frame[3 * i + 2] * a2;
    }
}

// out = Q a, (m). May work in place.
inline void out_of_frame(const Shape &S, const Pack *frame, const Pack *a, Pack *out) {
    for (int i = 0; i < S.separable(); i++)
        out[i] = a[i];
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++) {
        second_order::out_of_frame(S.sizes[c], frame, a + at, out + at);
        frame += second_order::frame_size(S.sizes[c]);
        at += S.sizes[c];
    }
    for (; at < S.m; at += 3, frame += FRAME3) {
        const Pack a0 = a[at], a1 = a[at + 1], a2 = a[at + 2];
        for (int i = 0; i < 3; i++)
            out[at + i] = frame[i] * a0 + frame[3 + i] * a1 + frame[6 + i] * a2;
    }
}

// The rows of Q'A that belong to curved cones, whose rows share one pattern; the others stay as they are in
// A. column: (2 m), for the rows of one cone in one column.
inline void rotate_A(const Shape &S, const Pack *frame, const Pack *A, Pack *rotated, Pack *column) {
    int at = S.separable();
    for (int c = 0; c < S.second_order; c++) {
        const int size = S.sizes[c], length = S.A_start[at + 1] - S.A_start[at];
        for (int e = 0; e < length; e++) {
            for (int i = 0; i < size; i++)
                column[i] = A[S.A_start[at + i] + e];
            second_order::into_frame(size, frame, column, column);
            for (int i = 0; i < size; i++)
                rotated[S.A_start[at + i] + e] = column[i];
        }
        frame += second_order::frame_size(size);
        at += size;
    }
    for (; at < S.m; at += 3, frame += FRAME3) {
        const int e0 = S.A_start[at], e1 = S.A_start[at + 1], e2 = S.A_start[at + 2];
        for (int e = 0; e < e1 - e0; e++) {
            const Pack a0 = A[e0 + e], a1 = A[e1 + e], a2 = A[e2 + e];
            for (int i = 0; i < 3; i++)
                rotated[S.A_start[at + i] + e] =
                    frame[3 * i] * a0 + frame[3 * i + 1] * a1 + frame[3 * i + 2] * a2;
        }
    }
}

} // namespace cvxfold
