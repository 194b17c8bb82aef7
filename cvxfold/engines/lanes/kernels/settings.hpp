// What a forward pass is asked for.
#pragma once

#include "standard.hpp"

namespace cvxfold {

// As the host and Python have it.
struct Settings {
    double eps_abs, eps_rel, eps_infeasible, penalty, relaxation;
    double seconds;                                           // that the pass may take; negative for no limit
    int32_t max_iters, penalty_is_fixed, refine, accelerated; // without `refine` F alone, to the tolerances
};

} // namespace cvxfold
