// When a point counts as a solution: no tolerance depends on the units of the data, or hides in the largest
// of them.
//
// 1. The primal residual, the dual one and the gap, each over the largest of its terms, as SCS has them.
//    Those of the gap may all cancel, and those of the dual residual vanish: there the natural sizes count,
//    max(|q|, |P||b|) of the dual residual, and a little of that times max(|b|, |x|) of the objective, which
//    may be far from it where x is small beside b; all of it where no datum says how large y is.
// 2. Each cone's rows of the primal residual, and each entry of the dual one, over the terms of that row,
//    |A||x| + |s| + |b| and |P||x| + |A|'|y| + |q|: ten times as generous for rows that are half-lines, a
//    thousand times for curved cones and the dual residual. Where b, or q and P x (but
//    for rounding beside the largest terms), have nothing there, no datum says how small these terms are
//    meant to be (the multiplier of an inactive constraint is zero): they count as a part of the largest, or
//    of |A||x|, at least, of a row whose entries are smaller than others a smaller one. Where q alone has
//    nothing, P x may be rounding: it counts as a little of |P| times the size of x at least, which is |x| or
//    |b|, but the latter at most |q|/|P|. What is rounding of that size in b is nothing, too.
// 3. The sum or difference of a second-order cone's first two rows that is the smaller (pairs.hpp), likewise.
//
// What rounding may leave is taken off beforehand, unless the tolerance itself is near rounding: a part of
// the largest terms, and of u; for y = R (s - u) one of R |u|, as long as that is little beside the natural
// size; and of the gap what these do to it. Of a row by itself no more is taken off than a part of its own
// terms: where rounding may be larger, nobody can tell whether it is solved, so it is not. But where nothing
// costs anything y = 0 is a solution's, and all that rounding may leave is taken off: what is left of y, in
// the interior of a curved cone, is nothing else, and so are its terms.
#pragma once

#include "residual.hpp"

namespace cvxfold {

const double FLOOR = 1e-13, GAP_FLOOR = 1e-14; // of the largest terms
const double STATE_FLOOR = 1e-15;              // of the largest |u|
const double NOISE = 1e-14, LITTLE = 1e-6;     // of R |u|; of the natural size of the dual residual
const double NEAR_ROUNDING = 1e-10;            // a tolerance that leaves less and less room for that
const double EXCUSED = 1e-8, UNTOLD = 1e-2;    // of a row's own terms: at most left to rounding; or of y's
const double ALL = 1e30;                       // where nothing costs anything
const double OBJECTIVE = 1e-3;                 // of the natural size of the objective
const double NOTHING = 1e-2;                   // of a little of |A| times the natural size of x
const double NO_MORE = 1e-12;                  // of the largest terms: as good as nothing
const double UNSAID = 1e-5;                    // of the largest terms, where no datum says how small they are
const double BY_ROW = 0.1, BY_PAIR = 0.1;      // of a row's residual over its own terms; of a pair's
const double BY_CONE = 1e-3;                   // of a curved cone's, and of an entry of the dual residual
const double PAIR_FLOOR = 1e-20;               // of a cone's terms, where a pair has next to none

// What is left of |value| beyond what rounding may leave; NaN stays.
inline Value beyond(Value value, Value floor) {
    return select(abs(value) <= floor, Value{}, abs(value) - floor);
}

// rest/scale; zero where there is no rest, whatever the scale.
inline Value over(Value rest, Value scale) {
    return select(rest == 0.0, Value{}, rest / max(scale, splat(2.3e-308)));
}

// The largest entries of the data and of x.
struct Sizes {
    Value P, A, q, b, x;

    Sizes(const Shape &S, const Workspace &w)
        : P(infinity_norm(w.P, S.nnz_P)), A(infinity_norm(w.A, S.nnz_A)), q(infinity_norm(w.q, S.n)),
          b(infinity_norm(w.b, S.m)), x(infinity_norm(w.x, S.n)) {}

    Mask both() const { return (q > 0.0) & (P > 0.0); }

    // |q|/|P|, zero where there is none.
    Value by_q() const { return select(both(), q / max(P, splat(2.3e-308)), Value{}); }

    // That of the rows where all of b is zero, as x may be.
    Value idle_rows() const { return select(b > 0.0, Value{}, A * by_q()); }
};

// |A||x| + |s| + |b| into `rows` (m) and |P||x| + |A|'|y| + |q| into `columns` (n), at w.Px = P x.
CVXFOLD_LONG void add_up_terms(const Shape &S, const Workspace &w, const Sizes &of, Pack *rows,
                               Pack *columns) {
    fill(columns, S.n, [&](int i) { return abs(w.q[i]); });
    add_over_P(S, columns, [&](int e, int j, Value sum) { return sum + abs(w.P[e] * w.x[j]); });
    int paired = S.second_order ? S.separable() : S.m; // rows from there on belong to pairs or are as others
    const auto add_y = [&](int j) {
        const Value y = abs(w.y[j]);
        change_row(columns, S.A_column, S.A_start[j], S.A_start[j + 1],
                   [&](int e, Value sum) { return sum + abs(w.A[e]) * y; });
    };
    for (int j = 0; j < S.m; j++) {
        set(rows[j],
            sum_over_row(w.A, w.x, S.A_column, S.A_start[j], S.A_start[j + 1], abs(w.s[j]) + abs(w.b[j]),
                         [](auto a, auto x, auto sum) { return sum + abs(a * x); }));
        if (j < paired)
            add_y(j);
    }
    each_pair(S, w, [&](int at, int, const second_order::Pair &pair) {
        for (; paired < at; paired++)
            add_y(paired);
        const Value small = 0.5 * abs(pair.y), large = 0.5 * abs(w.y[at] - pair.sign * w.y[at + 1]);
        change_by_pair(S, w, at, pair.sign, columns, [&](Value sum, Value with, Value against) {
            return sum + (abs(with) * small + abs(against) * large);
        });
        paired += 2;
    });
    for (; paired < S.m; paired++)
        add_y(paired);
    const Value natural_x = select(of.both(), min(of.b, of.by_q()), of.b);
    const Value unit = FLOOR * of.P * max(natural_x, of.x);
    const Value largest_row = max(infinity_norm(rows, S.m), of.idle_rows());
    const Value largest_column = infinity_norm(columns, S.n), column = max(unit, UNSAID * largest_column);
    const Value unit_row = FLOOR * max(select(of.both(), natural_x, Value{}), of.x);
    const Value row = UNSAID * max(largest_row / max(of.A, splat(2.3e-308)), of.x);
    fill(rows, S.m, [&](int j) {
        Value own{};
        for (int e = S.A_start[j]; e < S.A_start[j + 1]; e++)
            own += abs(w.A[e]);
        own = min(own, of.A);
        return select(abs(w.b[j]) <= NOTHING * own * unit_row, max(rows[j], own * max(unit_row, row)),
                      rows[j]);
    });
    fill(columns, S.n, [&](int i) {
        return select(w.q[i] == 0.0,
                      max(columns[i], select(abs(w.Px[i]) <= NO_MORE * largest_column, column, unit)),
                      columns[i]);
    });
}

struct Tested {
    Value number; // that is held against the tolerance
    Value bare;   // the worst row of the residuals over its own terms, with nothing left to rounding
};

// At what `residual` and `measure` found, against the tolerance `eps`. Uses w.du, w.dx.
CVXFOLD_LONG Tested tested(const Shape &S, Workspace &w, const Measured &m, Value size, double eps) {
    Pack *rows = w.du, *columns = w.dx;
    const Sizes of(S, w);
    add_up_terms(S, w, of, rows, columns);
    const Value y = infinity_norm(w.y, S.m), known = max(of.q, of.P * of.b);
    const Value natural = select(known > 0.0, known, select(of.b > 0.0, of.b, splat(1)));
    const Value primal = max(infinity_norm(rows, S.m), of.idle_rows()), u = infinity_norm(w.u, S.m);
    const double room = eps < NEAR_ROUNDING ? eps / NEAR_ROUNDING : 1;
    const Value noise = fold(0, S.m, Value{}, [&](int j) { return NOISE * w.R[j] * abs(w.u[j]); }, Larger());
    const Value dual = max(natural, infinity_norm(columns, S.n)),
                little = room * min(noise, LITTLE * natural);
    const Value primal_floor = room * (FLOOR * primal + STATE_FLOOR * u);
    const Value dual_floor = room * FLOOR * dual + little;
    const Value gap_floor = room * GAP_FLOOR * (y * primal + of.x * dual) + little * (primal + of.x);
    const Mask free = (of.q == 0.0) & (of.P == 0.0); // of any cost
    const Value excused = select(free, splat(ALL), select(known > 0.0, splat(EXCUSED), splat(UNTOLD)));
    Value largest_primal{}, largest_dual{}, most{}, bare{};
    each(S.n, [&](int i) { // 2
        largest_dual = largest(largest_dual, beyond(w.dual[i], dual_floor) * size / w.columns[i]);
        const Value rest = beyond(w.dual[i], min(dual_floor, excused * columns[i]));
        most = largest(most, BY_CONE * over(rest, columns[i]));
        bare = largest(bare, over(abs(w.dual[i]), columns[i]));
    });
    each(S.m, [&](int j) {
        largest_primal = largest(largest_primal, beyond(w.primal[j], primal_floor) * size / w.rows[j]);
    });
    each(S.separable(), [&](int j) {
        const Value rest = beyond(w.primal[j], min(primal_floor, EXCUSED * rows[j]));
        most = largest(most, BY_ROW * over(rest, rows[j]));
        bare = largest(bare, over(abs(w.primal[j]), rows[j]));
    });
    largest_dual = joined(largest_dual, Largest()), largest_primal = joined(largest_primal, Largest());
    most = joined(most, Largest()), bare = joined(bare, Largest());
    for (int cone = 0, at = S.separable(); at < S.m; at += S.rows_of(cone++)) {
        const Value left = infinity_norm(w.primal + at, S.rows_of(cone));
        const Value own = infinity_norm(rows + at, S.rows_of(cone));
        most = largest(most, BY_CONE * over(beyond(left, min(primal_floor, EXCUSED * own)), own));
        bare = largest(bare, over(left, own));
    }
    each_pair(S, w, [&](int at, int size, const second_order::Pair &pair) { // 3
        const Value left = w.primal[at] - pair.sign * w.primal[at + 1], own = terms_of_pair(S, w, at, pair);
        const Value floor = room * PAIR_FLOOR * infinity_norm(rows + at, size);
        most = largest(most, BY_PAIR * over(beyond(left, floor), own));
    });
    const Value share = select(known > 0.0, splat(OBJECTIVE), splat(1));
    const Value objective = share * size * size * natural * max(of.b, of.x);
    most = largest(most, over(largest_primal, m.primal_terms)); // 1
    most = largest(most, over(largest_dual, max(m.dual_terms, size * natural)));
    most = largest(most, over(beyond(m.gap, size * size * gap_floor), m.gap_terms + objective));
    return {most, bare};
}

} // namespace cvxfold
