// What all instances of a layer share: sizes, cones, and where everything stands.
#pragma once

#include <cstdint>

namespace cvxfold {

// minimize 1/2 x'Px + q'x  subject to  Ax + s = b, s in K, with K a product of cones in SCS's order.
//
// A is stored by rows; the rows of a cone that is no orthant share one pattern. P is stored by its upper
// triangle. K = [P A'; A -G] is stored by the columns of its lower triangle in the elimination order.
struct Shape {
    int32_t n, m, N;                                        // variables, rows, n + m
    int32_t zero, nonnegative;                              // rows
    int32_t second_order, semidefinite, exponential, power; // cones
    int32_t nnz_P, nnz_A, nnz_K, nnz_L;
    int32_t frame, roots;  // packs that the frames of all cones take; and what finding them begins with
    const int32_t *sizes;  // of each second-order cone
    const int32_t *orders; // of each semidefinite cone
    const double *alpha;   // of each power cone
    const int32_t *P_row, *P_column;
    const int32_t *A_start, *A_column;
    const int32_t *place; // where variable i, then row n + j, stands in the order
    const int32_t *K_start, *K_row;
    const int32_t *P_in_K, *A_in_K, *diagonal_in_K;
    const int32_t *L_start, *L_row;
    // For each row j of L: its entries by column, as places in L and columns, and how many of them, from each
    // one on, belong to columns of equal pattern below j (at most 4).
    const int32_t *row_start, *row_entry, *row_column, *row_run;

    int32_t separable() const { return zero + nonnegative; }
    bool curved() const { return second_order + semidefinite + exponential + power > 0; }

    // Rows of the curved cone of that number, in the order in which they stand.
    int rows_of(int cone) const {
        if (cone < second_order)
            return sizes[cone];
        if (cone >= second_order + semidefinite)
            return 3;
        const int order = orders[cone - second_order];
        return order * (order + 1) / 2;
    }
};

} // namespace cvxfold
