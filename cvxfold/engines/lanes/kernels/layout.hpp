// Parameters to data and solutions to outputs, and gradients the other way: affine maps by rows.
#pragma once

#include "loops.hpp"
#include "product.hpp"
#include "workspace.hpp"

namespace cvxfold {

// data = constant + weight * parameter entries, by rows of the data.
struct Map {
    const int32_t *start, *index;
    const double *weight, *constant;
};

struct Layout {
    int32_t entries, parameters, outputs;
    const int32_t *parameter_sizes, *output_sizes;
    const int32_t *output_index; // of all outputs together, into (x, y, s)
    const double *output_scale;
    Map P, q, A, b;
    int32_t moving_P, moving_q, moving_A, moving_b; // how many entries parameters reach, and which
    const int32_t *which_P, *which_q, *which_A, *which_b;
    int32_t moving_rows; // rows in which A or b has such entries
    const int32_t *which_rows;
};

CVXFOLD_LONG void apply(const Map &map, int rows, const Pack *parameters, Pack *out) {
    fill(out, rows, [&](int row) {
        Value sum = splat(map.constant[row]);
        for (int e = map.start[row]; e < map.start[row + 1]; e++)
            sum += map.weight[e] * parameters[map.index[e]];
        return sum;
    });
}

inline void add_transposed(const Map &map, int row, Value gradient, Pack *parameters) {
    for (int e = map.start[row]; e < map.start[row + 1]; e++)
        parameters[map.index[e]] += map.weight[e] * gradient;
}

// An adjoint and a solution in the program's own units: the gradients of the data are
//
//     q_bar = -p     b_bar = v     A_bar = -(v x' + y p')     P_bar = -(p x' + x p')/2
struct DataGradient {
    const Pack *p, *v, *x, *y;

    Value on_A(int row, int column) const { return -(v[row] * x[column] + y[row] * p[column]); }

    // Of an entry of the upper triangle, which stands for two off the diagonal.
    Value on_P(int row, int column) const {
        Value product = p[row] * x[column];
        return row == column ? -product : -(product + p[column] * x[row]);
    }
};

inline int row_of(const Shape &S, int entry, int row) {
    while (S.A_start[row + 1] <= entry)
        row++;
    return row;
}

// The squared norm on all that parameters reach of the gradient that `on` makes; with `beside` of the sum of
// both, of which q_bar and b_bar are those of `on` alone: a change of the gradient, by that of p and v, and
// by that of x and y.
CVXFOLD_LONG Value squared_norm_on_moving(const Shape &S, const Layout &Y, const DataGradient &on,
                                          const DataGradient *beside = nullptr) {
    int row = 0; // of A's entries, which come in its order
    Value sum = sum_of(0, Y.moving_q, [&](int i) { return on.p[Y.which_q[i]] * on.p[Y.which_q[i]]; });
    sum = fold(0, Y.moving_b, sum, [&](int i) { return on.v[Y.which_b[i]] * on.v[Y.which_b[i]]; }, Sum());
    const auto on_A = [&](int i) {
        row = row_of(S, Y.which_A[i], row);
        const int column = S.A_column[Y.which_A[i]];
        Value entry = on.on_A(row, column);
        if (beside)
            entry += beside->on_A(row, column);
        return entry * entry;
    };
    sum = fold(0, Y.moving_A, sum, on_A, Sum());
    const auto on_P = [&](int i) {
        const int row = S.P_row[Y.which_P[i]], column = S.P_column[Y.which_P[i]];
        Value entry = on.on_P(row, column);
        if (beside)
            entry += beside->on_P(row, column);
        return entry * entry;
    };
    return fold(0, Y.moving_P, sum, on_P, Sum());
}

// The gradient on the parameters, (entries).
CVXFOLD_LONG void pull_back(const Shape &S, const Layout &Y, const DataGradient &g, Pack *parameters) {
    clear(parameters, Y.entries);
    one_by_one([&] {
        for (int i = 0; i < Y.moving_q; i++)
            add_transposed(Y.q, Y.which_q[i], -g.p[Y.which_q[i]], parameters);
        for (int i = 0; i < Y.moving_b; i++)
            add_transposed(Y.b, Y.which_b[i], g.v[Y.which_b[i]], parameters);
        for (int i = 0, row = 0; i < Y.moving_A; i++) {
            const int e = Y.which_A[i];
            row = row_of(S, e, row);
            add_transposed(Y.A, e, g.on_A(row, S.A_column[e]), parameters);
        }
        for (int i = 0; i < Y.moving_P; i++) {
            const int e = Y.which_P[i];
            add_transposed(Y.P, e, g.on_P(S.P_row[e], S.P_column[e]), parameters);
        }
    });
}

} // namespace cvxfold
