// Rows of semidefinite cones that are eliminated by themselves, before all else.
//
// With B = E Q'A on these rows, K's part [. B'; B -G] leaves B'G^-1 B between their columns, (e, f):
//
//     <Q E G^-1 E Q' A_e, A_f>
//
// where the A_e are matrices with few entries. So neither Q'A nor entries of L for these rows are needed:
//
// - Where Q E G^-1 E Q' is a product H (.) H, as in the interior-point method, H A_e H costs little, and each
//   inner product has the entries of A_f alone (Fujisawa, Kojima and Nakata, "Exploiting sparsity in
//   primal-dual interior-point methods for semidefinite programming", 1997).
// - Elsewhere B'G^-1 B is formed of B's rows with E > 0: D is the identity between positive eigenvalues.
//
// Right-hand sides take B'G^-1 r before K's other part is solved with, z = G^-1 (B x - r) after it.
#pragma once

#include "frames.hpp"
#include "substitution.hpp"
#include "workspace.hpp"

namespace cvxfold {

// What B is made of: the frames, null for Q = I, and E (m), null for ones.
struct Turned {
    Pack *frame;
    const Pack *E;
};

// Calls visit(rows, frame) for the rows of each cone that are eliminated, with its frame.
template <typename Visit> inline void each_eliminated(const Shape &S, Pack *frame, Visit visit) {
    if (S.pairs == 0)
        return;
    if (frame)
        for (int c = 0; c < S.second_order; c++)
            frame += second_order::frame_size(S.sizes[c]);
    for (int c = 0; c < S.semidefinite; c++) {
        const MatrixRows &M = S.matrices[c];
        if (M.pairs >= 0)
            visit(M, frame);
        if (frame)
            frame += semidefinite::frame_size(M.order);
    }
}

// Adds to K the inner products of the columns of A with images, each a lower triangle by rows (order, order)
// that make(e, image) leaves. terms: a pack for each own entry of the cone.
template <typename Make>
inline void add_inner_products(const Shape &S, const MatrixRows &M, const Pack *A, Pack *K, Pack *terms,
                               Pack *image, Make make) {
    const int own = S.column_start[M.columns + M.count] - M.own;
    const MatrixRows::Entry *entries = S.in_column + M.own;
    const int32_t *starts = S.column_start + M.columns, *pair = S.pair_in_K + M.pairs;
    fill(terms, own, [&](int k) {
        return A[entries[k].entry] * (entries[k].i == entries[k].j ? 1 : semidefinite::ROOT_TWO);
    });
    for (int e = 0; e < M.count; pair += ++e) {
        make(e, image);
        change_at(K, pair, 0, e + 1, [&](int f, Value sum) {
            for (int k = starts[f] - M.own; k < starts[f + 1] - M.own; k++)
                sum = fused(terms[k], image[entries[k].i * M.order + entries[k].j], sum);
            return sum;
        });
    }
}

// B'G^-1 B by the rows of B with E > 0. B: (rows, count), rows: (2 rows).
inline void add_gram(const Shape &S, const MatrixRows &M, const Pack *A, const Pack *E, const Pack *G,
                     const Pack *Q, Pack *B, Pack *rows, Pack *image, Pack *K) {
    const int order = M.order, size = semidefinite::rows(order);
    Pack *weight = rows, *where = rows + size;
    int count = 0;
    for (int j = 0, r = M.row; j < order; j++)
        for (int i = j; i < order; i++, r++) {
            if (E && !any(E[r] != 0.0))
                continue;
            const Value by = (E ? Value(E[r]) : splat(1)) / sqrt(G[r]);
            set(weight[count], by * (i == j ? 1 : semidefinite::ROOT_TWO));
            set(where[count++], splat(i * order + j));
        }
    for (int e = 0; e < M.count; e++) {
        image_of_column(S, M, e, A, Q, image + order * order, image);
        each(count,
             [&](int k) { B[k * M.count + e] = weight[k] * image[static_cast<int>(Value(where[k])[0])]; });
    }
    const int32_t *pair = S.pair_in_K + M.pairs;
    products<true>(count, B, M.count, M.count, B, M.count, M.count, [&](int e, int f, Value sum) {
        Pack &to = K[pair[e * (e + 1) / 2 + f]];
        to = to + sum;
    });
}

// Adds to K what the rows leave where Q = E = I.
CVXFOLD_LONG void add_eliminated(const Shape &S, Workspace &w, const Pack *G) {
    each_eliminated(S, nullptr, [&](const MatrixRows &M, Pack *) {
        Pack *image = frame_scratch(S, w.frame);
        clear(image, M.order * M.order);
        add_inner_products(S, M, w.A, w.K, w.rotated_A + M.first, image, [&](int e, Pack *image) {
            const auto each_own = [&](int column, auto value) {
                const int first = S.column_start[M.columns + column];
                each(S.column_start[M.columns + column + 1] - first, [&](int k) {
                    const MatrixRows::Entry &own = S.in_column[first + k];
                    image[own.i * M.order + own.j] = value(own);
                });
            };
            if (e > 0)
                each_own(e - 1, [](const MatrixRows::Entry &) { return Value{}; });
            each_own(e, [&](const MatrixRows::Entry &own) {
                return w.A[own.entry] * (own.i == own.j ? 1 : 1 / semidefinite::ROOT_TWO) /
                       G[M.row + own.row];
            });
        });
    });
}

// The same in Newton's method.
CVXFOLD_LONG void add_eliminated_by_E(const Shape &S, Workspace &w, const Pack *G) {
    each_eliminated(S, w.frame, [&](const MatrixRows &M, Pack *Q) {
        Pack *image = frame_scratch(S, w.frame);
        add_gram(S, M, w.A, w.E, G, Q, w.rotated_A + M.first, w.aside, image, w.K);
    });
}

// The same in the interior-point method, where M stands for Q, E = I and G = 1: H = M M'.
CVXFOLD_LONG void add_eliminated_by_scaling(const Shape &S, Workspace &w, const Pack *G) {
    each_eliminated(S, w.frame, [&](const MatrixRows &M, Pack *frame) {
        const int order = M.order, size = order * order;
        Pack *image = frame_scratch(S, w.frame), *H = image + 2 * size, *transposed = H + size;
        if (!M.sparse) {
            add_gram(S, M, w.A, nullptr, G, frame, w.rotated_A + M.first, w.aside, image, w.K);
            return;
        }
        transpose(order, frame, transposed);
        products<true>(order, transposed, order, order, transposed, order, order,
                       [&](int i, int j, Value sum) { H[i * order + j] = H[j * order + i] = sum; });
        add_inner_products(S, M, w.A, w.K, w.rotated_A + M.first, image, [&](int e, Pack *image) {
            image_of_column(S, M, e, w.A, H, image + size, image);
        });
    });
}

// Adds B'G^-1 r to the rest of `right`, (C, N) in the elimination order. -1/G is the rows' part of D^-1.
template <int C>
inline void add_to_rest(const Shape &S, Workspace &w, const Factor &f, const Turned &B, Pack *right) {
    each_eliminated(S, B.frame, [&](const MatrixRows &M, Pack *Q) {
        const int32_t *place = S.place + S.n + M.row;
        const int rows = semidefinite::rows(M.order), row = M.row - S.matrix_row;
        for (int c = 0; c < C; c++) {
            Pack *v = w.aside + M.row;
            fill(v, rows, [&](int r) {
                const Value part = right[c * S.N + place[r]] * -f.inverse_D[place[r]];
                return B.E ? B.E[M.row + r] * part : part;
            });
            if (Q)
                semidefinite::turn_triangle(M.order, Q, false, v, v, frame_scratch(S, w.frame));
            for (int r = 0; r < rows; r++) {
                const Value factor = v[r];
                const int first = S.own_start[row + r];
                each(S.own_start[row + r + 1] - first, [&](int k) {
                    Pack &to = right[c * S.N + S.own_place[first + k]];
                    to = fused(w.A[S.own_entry[first + k]], factor, to);
                });
            }
        }
    });
}

// Adds G^-1 B x to the rows' part of `right`, where the rest is solved for.
template <int C>
inline void add_from_rest(const Shape &S, Workspace &w, const Factor &f, const Turned &B, Pack *right) {
    each_eliminated(S, B.frame, [&](const MatrixRows &M, Pack *Q) {
        const int32_t *place = S.place + S.n + M.row;
        const int rows = semidefinite::rows(M.order), row = M.row - S.matrix_row;
        for (int c = 0; c < C; c++) {
            Pack *v = w.aside + M.row;
            fill(v, rows, [&](int r) {
                Value sum{};
                for (int k = S.own_start[row + r]; k < S.own_start[row + r + 1]; k++)
                    sum = fused(w.A[S.own_entry[k]], right[c * S.N + S.own_place[k]], sum);
                return sum;
            });
            if (Q)
                semidefinite::turn_triangle(M.order, Q, true, v, v, frame_scratch(S, w.frame));
            each(rows, [&](int r) {
                const Value part = B.E ? B.E[M.row + r] * v[r] : Value(v[r]);
                Pack &to = right[c * S.N + place[r]];
                to = fused(-f.inverse_D[place[r]], part, to);
            });
        }
    });
}

// C right-hand sides at once, in place, in the elimination order, (C, N).
template <int C>
inline void solve_with(const Shape &S, Workspace &w, const Factor &f, const Turned &B, Pack *right) {
    add_to_rest<C>(S, w, f, B, right);
    solve<C>(S, f, right);
    add_from_rest<C>(S, w, f, B, right);
}

// out = Q'A x, (m), by w.rotated_A where that is.
CVXFOLD_LONG void multiply_rotated_A(const Shape &S, Workspace &w, const Pack *x, Pack *out) {
    multiply_rows(S, w.rotated_A, x, out, 0, S.matrix_row);
    for (int c = 0; c < S.semidefinite; c++) {
        const MatrixRows &M = S.matrices[c];
        if (M.pairs < 0)
            multiply_rows(S, w.rotated_A, x, out, M.row, M.row + semidefinite::rows(M.order));
    }
    each_eliminated(S, w.frame, [&](const MatrixRows &M, Pack *Q) {
        multiply_matrix_rows(S, w.A, x, out, M.row, M.row + semidefinite::rows(M.order));
        semidefinite::turn_triangle(M.order, Q, true, out + M.row, out + M.row, frame_scratch(S, w.frame));
    });
    multiply_rows(S, w.rotated_A, x, out, S.matrix_end, S.m);
}

// out += A'Q y, (n), likewise.
CVXFOLD_LONG void add_rotated_A_transposed(const Shape &S, Workspace &w, const Pack *y, Pack *out) {
    add_rows(S, w.rotated_A, y, out, 0, S.matrix_row);
    for (int c = 0; c < S.semidefinite; c++) {
        const MatrixRows &M = S.matrices[c];
        if (M.pairs < 0)
            add_rows(S, w.rotated_A, y, out, M.row, M.row + semidefinite::rows(M.order));
    }
    each_eliminated(S, w.frame, [&](const MatrixRows &M, Pack *Q) {
        Pack *v = w.aside + M.row;
        semidefinite::turn_triangle(M.order, Q, false, y + M.row, v, frame_scratch(S, w.frame));
        add_matrix_rows(S, w.A, w.aside, out, M.row, M.row + semidefinite::rows(M.order));
    });
    add_rows(S, w.rotated_A, y, out, S.matrix_end, S.m);
}

// With the factor of Newton's method and of the adjoint.
template <int C> inline void solve_newton(const Shape &S, Workspace &w) {
    solve_with<C>(S, w, w.newton, {w.frame, w.E}, w.right);
}

} // namespace cvxfold
