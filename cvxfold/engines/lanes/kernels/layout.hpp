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

// A gradient of the data, or a change of it: by that of p and v, where they change, and by that of x and y,
// where they do. q_bar and b_bar depend on p and v alone.
struct GradientChange {
    const DataGradient *by_adjoint, *by_point; // null for none
};

// The squared norms of C of them on all that parameters reach, in one go through that.
template <int C> struct SquaredNorms {
    Value of[C];
};
template <int C>
CVXFOLD_LONG SquaredNorms<C> squared_norms_on_moving(const Shape &S, const Layout &Y,
                                                     const GradientChange (&on)[C]) {
    SquaredNorms<C> sums{};
    const auto add = [&](auto entry_of) {
        for (int c = 0; c < C; c++) {
            Value entry{};
            if (on[c].by_adjoint)
                entry = entry_of(*on[c].by_adjoint);
            if (on[c].by_point)
                entry += entry_of(*on[c].by_point);
            sums.of[c] += entry * entry;
        }
    };
    const auto add_of_vectors = [&](auto entry_of) {
        for (int c = 0; c < C; c++)
            if (on[c].by_adjoint) {
                const Value entry = entry_of(*on[c].by_adjoint);
                sums.of[c] += entry * entry;
            }
    };
    each(Y.moving_q,
         [&](int i) { add_of_vectors([&](const DataGradient &g) { return Value(g.p[Y.which_q[i]]); }); });
    each(Y.moving_b,
         [&](int i) { add_of_vectors([&](const DataGradient &g) { return Value(g.v[Y.which_b[i]]); }); });
    int row = 0; // of A's entries, which come in its order
    each(Y.moving_A, [&](int i) {
        row = row_of(S, Y.which_A[i], row);
        const int column = S.A_column[Y.which_A[i]];
        add([&](const DataGradient &g) { return g.on_A(row, column); });
    });
    each(Y.moving_P, [&](int i) {
        const int first = S.P_row[Y.which_P[i]], column = S.P_column[Y.which_P[i]];
        add([&](const DataGradient &g) { return g.on_P(first, column); });
    });
    for (Value &sum : sums.of)
        sum = joined(sum, Sum());
    return sums;
}

// That of one gradient; with `beside` of the sum of both, of which q_bar and b_bar are those of `on` alone.
inline Value squared_norm_on_moving(const Shape &S, const Layout &Y, const DataGradient &on,
                                    const DataGradient *beside = nullptr) {
    const GradientChange one[] = {{&on, beside}};
    return squared_norms_on_moving(S, Y, one).of[0];
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
