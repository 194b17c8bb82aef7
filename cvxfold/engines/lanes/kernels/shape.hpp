// What all instances of a layer share: sizes, cones, and where everything stands.
#pragma once

#include "standard.hpp"

namespace cvxfold {

// A count of cones, which a compiler may be told to be zero: CVXFOLD_WITHOUT_… is 1.
#define CVXFOLD_COUNT(kind, name) CVXFOLD_COUNT_OF(CVXFOLD_WITHOUT_##kind, name)
#define CVXFOLD_COUNT_OF(without, name) CVXFOLD_COUNT_IF(without, name)
#define CVXFOLD_COUNT_IF(without, name) CVXFOLD_COUNT_##without(name)
#define CVXFOLD_COUNT_0(name) int32_t name
#define CVXFOLD_COUNT_1(name)                                                                                \
    static constexpr int32_t name = 0;                                                                       \
    int32_t no_##name

#ifndef CVXFOLD_WITHOUT_SECOND_ORDER
#define CVXFOLD_WITHOUT_SECOND_ORDER 0
#endif
#ifndef CVXFOLD_WITHOUT_SEMIDEFINITE
#define CVXFOLD_WITHOUT_SEMIDEFINITE 0
#endif
#ifndef CVXFOLD_WITHOUT_EXPONENTIAL
#define CVXFOLD_WITHOUT_EXPONENTIAL 0
#endif
#ifndef CVXFOLD_WITHOUT_POWER
#define CVXFOLD_WITHOUT_POWER 0
#endif

const int PANEL = 4; // columns of a panel, and of a run, at most

// Neighbouring columns of L of one pattern: each is the one before without its first row.
struct Panel {
    // What a run of neighbouring earlier columns, of one pattern from the panel's rows on, does to it.
    struct Update {
        int32_t column, run;   // the first of them, and how many
        int32_t count;         // of the panel's columns that it changes
        int32_t entry[PANEL];  // where in L the first of the panel's rows is, in each column of the run
        int32_t target[PANEL]; // which of the panel's columns it changes
    };

    int32_t first, count; // columns
    int32_t begin, end;   // updates
};

// The rows of a semidefinite cone. An entry that the program has none of, which is there for their common
// pattern, is zero: the others are listed.
struct MatrixRows {
    // Of a column: at (i, j), i >= j, of its matrix.
    struct Entry {
        int32_t i, j, row, entry; // the row among the cone's; which entry of A
    };

    int32_t row, order;   // the first of them; of the matrices
    int32_t first, count; // the first entry of A; columns of the pattern
    int32_t columns;      // where in `column_start` those are
    int32_t own;          // the first of the program's own entries among those by columns
    int32_t pairs;        // where in `pair_in_K` pairs of columns are; -1 where K has the rows
    int32_t sparse;       // whether the program has few of the entries
};

// minimize 1/2 x'Px + q'x  subject to  Ax + s = b, s in K, with K a product of cones in SCS's order.
//
// A is stored by rows; the rows of a cone that is no orthant share one pattern. P is stored by its upper
// triangle. K = [P A'; A -G] is stored by the columns of its lower triangle in the elimination order.
//
// Rows of a semidefinite cone that come before all of their columns are eliminated by themselves
// (eliminated.hpp): K has nothing but their diagonal, and what they leave between pairs of columns.
//
// That begins with leaves: columns with one row besides the diagonal, that no other column changes, such as
// those of bounds. Column l < leaves has the entries 2l and 2l + 1 of K, and entry l of L; those with row
// leaves + i are leaf_start[i] to leaf_start[i + 1].
struct Shape {
    int32_t n, m, N;                           // variables, rows, n + m
    int32_t zero, nonnegative;                 // rows
    CVXFOLD_COUNT(SECOND_ORDER, second_order); // cones
    CVXFOLD_COUNT(SEMIDEFINITE, semidefinite);
    CVXFOLD_COUNT(EXPONENTIAL, exponential);
    CVXFOLD_COUNT(POWER, power);
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
    int32_t leaves;
    const int32_t *leaf_start;
    const int32_t *L_start, *L_row;
    const int32_t *L_reach; // of an entry of L, the first one behind it whose row is not the next one
    int32_t panels;         // neighbouring columns of L that are factored together
    const Panel *panel;
    const Panel::Update *update;
    int32_t matrix_row, matrix_end; // the rows of semidefinite cones
    const MatrixRows *matrices;     // of each
    const int32_t *own_start;       // their own entries by rows, from matrix_row on: which of A, in which
    const int32_t *own_entry, *own_column, *own_place; // column, and where that stands in the order
    const int32_t *column_start;                       // the same by columns
    const MatrixRows::Entry *in_column;
    int32_t pairs;            // of columns of rows that are eliminated
    const int32_t *pair_in_K; // where in K they are
    bool diagonal_P;          // whether P is, each entry once
    bool dear;                // a factorization costs much beside an application of F
    bool alone;               // packs of one serve best, whatever the batch: A and L are large and dense
    bool apart; // instances are factored one by one, with vectors of rows: L has long runs of neighbours

    int32_t separable() const { return zero + nonnegative; }
    bool curved() const { return second_order + semidefinite + exponential + power > 0; }
    bool seeks_roots() const { return semidefinite + exponential + power > 0; } // or eigenvectors

    // Whether there are cones that may be tilted (tilt.hpp).
    bool may_tilt() const { return second_order + exponential + power > 0; }
    int tilt_packs() const { return may_tilt() ? 1 + exponential + second_order : 0; }

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
