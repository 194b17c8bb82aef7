// The symbolic analysis of K for one structure: where L has entries, and how K's are found there.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/shape.hpp"

namespace cvxfold {

// A structure as it is handed over; pointers are copied from.
struct Description {
    int32_t n, m, zero, nonnegative, second_order, semidefinite, exponential, power, nnz_P, nnz_A;
    const int32_t *sizes, *orders;
    const double *alpha;
    const int32_t *P_row, *P_column; // upper triangle
    const int32_t *A_start, *A_column;
    const int32_t *A_own; // whether the program has the entry
    const int32_t *order; // (n + m): which variable or row comes first, second, …
};

struct Analysis {
    Shape shape;
    int64_t multiplications; // of a factorization

    explicit Analysis(const Description &given);
    Analysis(const Analysis &) = delete;
    Analysis &operator=(const Analysis &) = delete;

  private:
    void find_order(const Description &given);
    void find_matrices(const Description &given);
    void find_K();
    void find_L();
    void find_panels();
    void find_reach();
    void find_best_packs();
    bool continues(int column) const;
    bool same_rows(int a, int from_a, int b, int from_b) const;

    std::vector<int32_t> sizes_, orders_, P_row_, P_column_, A_start_, A_column_, place_, K_start_, K_row_,
        P_in_K_, A_in_K_, diagonal_in_K_, own_start_, own_entry_, own_column_, own_place_, column_start_,
        pair_in_K_, leaf_start_, L_start_, L_row_, L_reach_;
    std::vector<MatrixRows> matrices_;
    std::vector<MatrixRows::Entry> in_column_;
    std::vector<Panel> panels_;
    std::vector<Panel::Update> updates_;
    std::vector<double> alpha_;
};

} // namespace cvxfold
