// Parameters to data and solutions to outputs, and gradients the other way: affine maps by rows.
#pragma once

#include "loops.hpp"
#include "product.hpp"
#include "workspace.hpp"

namespace cvxfold {

// data = constant + weight * parameter entries, by rows of the data.
struct Map {
    const int32_t *start, *index;
    const int32_t *reach; // of a row, the first one behind it that is not made of the next parameter alike
    const double *weight, *constant;
};

struct Layout {
    int32_t entries, parameters, outputs;
    const int32_t *parameter_sizes, *output_sizes;
    const int32_t *output_index; // of all outputs together, into (x, y, s)
    const double *output_scale;
    const double *output_least, *output_most; // what each of them is held between
    Map P, q, A, b;
    int32_t moving_P, moving_q, moving_A, moving_b; // how many entries parameters reach, and which
    const int32_t *which_P, *which_q, *which_A, *which_b;
    int32_t moving_rows; // rows in which A or b has such entries
    const int32_t *which_rows;
};

CVXFOLD_LONG void apply(const Map &map, int rows, const Pack *parameters, Pack *out) {
#if CVXFOLD_QUADS
    for (int row = 0; row < rows;) {
        const int end = map.reach[row], entry = map.start[row];
        if (end - row < FEW_NEIGHBOURS) {
            Value sum = splat(map.constant[row]);
            for (int e = entry; e < map.start[row + 1]; e++)
                sum += map.weight[e] * parameters[map.index[e]];
            out[row++] = sum;
            continue;
        }
        const double weight = map.weight[entry];
        const Pack *CVXFOLD_RESTRICT from = parameters + (map.index[entry] - row);
        CVXFOLD_INDEPENDENT
        for (int k = row; k < end; k++)
            out[k] = map.constant[k] + weight * from[k];
        row = end;
    }
#else
    fill(out, rows, [&](int row) {
        Value sum = splat(map.constant[row]);
        for (int e = map.start[row]; e < map.start[row + 1]; e++)
            sum += map.weight[e] * parameters[map.index[e]];
        return sum;
    });
#endif
}

inline void add_transposed(const Map &map, int row, Value gradient, Pack *parameters) {
    for (int e = map.start[row]; e < map.start[row + 1]; e++)
        parameters[map.index[e]] += map.weight[e] * gradient;
}

// The same for `count` neighbouring rows that neighbouring parameters make alike.
template <typename F> inline void add_run(const Map &map, int row, int count, Pack *parameters, F gradient) {
    const double weight = map.weight[map.start[row]];
    Pack *CVXFOLD_RESTRICT to = parameters + map.index[map.start[row]];
    CVXFOLD_INDEPENDENT
    for (int k = 0; k < count; k++)
        to[k] += weight * gradient(k);
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

// How many of A's entries that parameters reach, from number i on, are the rest of their row, side by side;
// 1 where they are few.
inline int run_on_A(const Shape &S, const Layout &Y, int i, int row) {
    const int entry = Y.which_A[i], end = S.A_start[row + 1], last = i + (end - 1 - entry);
    const bool rest = last < Y.moving_A && Y.which_A[last] == end - 1;
    return rest && stand_together(S.A_column, entry, end) ? end - entry : 1;
}

// A gradient of the data, or a change of it: by that of p and v, where they change, and by that of x and y,
// where they do. q_bar and b_bar depend on p and v alone.
struct GradientChange {
    const DataGradient *by_adjoint, *by_point; // null for none
};

// The sum of the squares of a run's entries, `count` from `column` on, by SUMS sums side by side.
inline Value squares_of_run(const GradientChange &on, int row, int column, int count) {
    Value own[SUMS] = {};
    int i = 0;
    const auto entry = [&](int at) {
        Value sum{};
        if (on.by_adjoint)
            sum = on.by_adjoint->on_A(row, column + at);
        if (on.by_point)
            sum += on.by_point->on_A(row, column + at);
        return sum;
    };
#if CVXFOLD_QUADS
    const auto quad = [&](const DataGradient &g, int at) {
        return -(quad_at(g.x + column + at) * Value(g.v[row]) + quad_at(g.p + column + at) * Value(g.y[row]));
    };
    i = add_by_quads(0, count, own, [&](Quad sums, int at) {
        Quad sum{};
        if (on.by_adjoint)
            sum = quad(*on.by_adjoint, at);
        if (on.by_point)
            sum += quad(*on.by_point, at);
        return sums + sum * sum;
    });
#else
    for (; i + SUMS <= count; i += SUMS)
        for (int k = 0; k < SUMS; k++) {
            const Value one = entry(i + k);
            own[k] += one * one;
        }
#endif
    for (; i < count; i++) {
        const Value one = entry(i);
        own[0] += one * one;
    }
    return total_of(own);
}

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
    const auto add_on_A = [&](int i) {
        const int column = S.A_column[Y.which_A[i]];
        add([&](const DataGradient &g) { return g.on_A(row, column); });
    };
    if constexpr (GROUP > 1) {
        each(Y.moving_A, [&](int i) {
            row = row_of(S, Y.which_A[i], row);
            add_on_A(i);
        });
    } else {
        for (int i = 0, count; i < Y.moving_A; i += count) {
            row = row_of(S, Y.which_A[i], row);
            count = run_on_A(S, Y, i, row);
            if (count == 1)
                add_on_A(i);
            else
                for (int c = 0; c < C; c++)
                    sums.of[c] += squares_of_run(on[c], row, S.A_column[Y.which_A[i]], count);
        }
    }
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
        for (int i = 0, row = 0, count; i < Y.moving_A; i += count) {
            const int e = Y.which_A[i], column = S.A_column[e];
            row = row_of(S, e, row);
            count = CVXFOLD_QUADS ? run_on_A(S, Y, i, row) : 1;
            if (count > 1 && Y.A.reach[e] >= e + count) {
                add_run(Y.A, e, count, parameters, [&](int k) { return g.on_A(row, column + k); });
            } else {
                count = 1;
                add_transposed(Y.A, e, g.on_A(row, column), parameters);
            }
        }
        for (int i = 0; i < Y.moving_P; i++) {
            const int e = Y.which_P[i];
            add_transposed(Y.P, e, g.on_P(S.P_row[e], S.P_column[e]), parameters);
        }
    });
}

} // namespace cvxfold
