// What many earlier columns do to a panel at once, where one instance alone is factored and rows are
// neighbours: products of dense blocks, whose sums stay in registers from the first column to the last.
#pragma once

#include "rows.hpp"
#include "shape.hpp"

namespace cvxfold {

#if CVXFOLD_QUADS
// The updates of a panel from `from` on that change all of its columns in the same neighbouring rows; returns
// the end of them.
inline int end_of_dense(const Shape &S, const Panel &P, int from) {
    const auto length = [&](const Panel::Update &u) { return S.L_start[u.column + 1] - u.entry[0]; };
    int end = from;
    for (; end < P.end; end++) {
        const Panel::Update &u = S.update[end];
        if (u.count != PANEL || S.L_reach[u.entry[0]] < S.L_start[u.column + 1] ||
            length(u) != length(S.update[from]))
            break;
    }
    return end;
}

// Earlier columns at work: where in L the panel's first row is, and what the panel's columns take of them,
// PANEL numbers each.
struct Working {
    int count;
    const int32_t *entry;
    const Value *factor;
};

// QUADS quads of rows of the panel's columns, `row` rows behind its first one.
template <int QUADS>
inline void update_block(const Working &by, const Value *L, int row, Value *const (&to)[PANEL]) {
    Quad sum[PANEL][QUADS];
    for (int c = 0; c < PANEL; c++)
        for (int q = 0; q < QUADS; q++)
            sum[c][q] = quad_at(to[c] + row + SUMS * q);
    const Value *factor = by.factor;
    for (int k = 0; k < by.count; k++, factor += PANEL) {
        const Value *column = L + by.entry[k] + row;
        Quad entry[QUADS];
        for (int q = 0; q < QUADS; q++)
            entry[q] = quad_at(column + SUMS * q);
        for (int c = 0; c < PANEL; c++) {
            const Quad own = quad_of(factor[c]);
            for (int q = 0; q < QUADS; q++)
                sum[c][q] = fused(entry[q], own, sum[c][q]);
        }
    }
    for (int c = 0; c < PANEL; c++)
        for (int q = 0; q < QUADS; q++)
            put_quad(to[c] + row + SUMS * q, sum[c][q]);
}

// The rows that are left, one by one.
inline void update_row(const Working &by, const Value *L, int row, Value *const (&to)[PANEL]) {
    Value sum[PANEL];
    for (int c = 0; c < PANEL; c++)
        sum[c] = to[c][row];
    for (int k = 0; k < by.count; k++)
        for (int c = 0; c < PANEL; c++)
            sum[c] = fused(L[by.entry[k] + row], by.factor[PANEL * k + c], sum[c]);
    for (int c = 0; c < PANEL; c++)
        to[c][row] = sum[c];
}

// Those of a panel's updates from `from` on that can be done so, if they are several; returns the next one.
//
// 1. The negative of the panel's own rows of L D, of the columns that are not idle. 2. Rows by blocks, the
// panel's own ones among them. 3. Of these only a triangle is wanted.
//
// Args: target: (PANEL, N). scratch: (PANEL + 1, N).
inline int update_by_blocks(const Shape &S, const Panel &P, int from, const Value *L, const Value *D,
                            const Value *idle, Value *target, Value *scratch) {
    const int end = end_of_dense(S, P, from);
    if (end - from <= 1)
        return from;
    Value *factor = scratch;
    int32_t *entry = reinterpret_cast<int32_t *>(scratch + static_cast<size_t>(PANEL) * S.N);
    int count = 0;
    for (int u = from; u < end; u++) // 1
        for (int k = 0; k < S.update[u].run; k++) {
            const int column = S.update[u].column + k;
            if (idle[column].number != 0)
                continue;
            entry[count] = S.update[u].entry[k];
            for (int c = 0; c < PANEL; c++)
                factor[PANEL * count + c] = -(L[entry[count] + c] * D[column]);
            count++;
        }
    const Working by{count, entry, factor};
    const int length = S.L_start[S.update[from].column + 1] - S.update[from].entry[0];
    Value *to[PANEL];
    for (int c = 0; c < PANEL; c++)
        to[c] = target + static_cast<size_t>(c) * S.N + P.first;
    int row = 0; // 2
    for (; row + 3 * SUMS <= length; row += 3 * SUMS)
        update_block<3>(by, L, row, to);
    if (row + 2 * SUMS <= length) {
        update_block<2>(by, L, row, to);
        row += 2 * SUMS;
    } else if (row + SUMS <= length) {
        update_block<1>(by, L, row, to);
        row += SUMS;
    }
    for (; row < length; row++)
        update_row(by, L, row, to);
    for (int c = 1; c < PANEL; c++) // 3
        for (int i = 0; i < c; i++)
            to[c][i] = Value{};
    return end;
}

// Whether a column of L is nothing: that of a half-line that is not active.
inline Value is_idle(const Value *L, int length) {
    return length >= FEW_NEIGHBOURS && largest_size(L, length).number == 0 ? 1 : 0;
}
#endif

// Where packs are vectors already, and where threads share the work, none.
template <typename Number>
inline int update_by_blocks(const Shape &, const Panel &, int from, const Number *, const Number *,
                            const Number *, Number *, Number *) {
    return from;
}

template <typename Number> inline double is_idle(const Number *, int) { return 0; }

} // namespace cvxfold
