"""Truth from outside of the package: cvxpy with Clarabel at tight tolerances, and its central differences."""

import warnings
from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import torch

_TIGHT = dict.fromkeys(
    ("tol_gap_abs", "tol_gap_rel", "tol_feas", "tol_ktratio", "tol_infeas_abs", "tol_infeas_rel"), 1e-12
)


def clarabel(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    values: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """The variables' values where the parameters have some, all unbatched."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value
    fresh = cp.Problem(problem.objective, problem.constraints)
    options: dict[str, Any] = {**_TIGHT, "ignore_dpp": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that 1e-12 was not reached
        fresh.solve(solver=cp.CLARABEL, **options)
    assert fresh.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE)
    return [np.array(variable.value) for variable in variables]


def check_against_clarabel(
    layer: Any,
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    values: Sequence[torch.Tensor],
    *,
    tolerance: float = 1e-6,
    of_differences: float = 1e-4,
    step: float = 1e-3,
) -> None:
    """A layer's solutions, and its gradients along a random direction of all parameters together.

    Args:
        layer: of the problem, for the parameters and variables in this order.
        problem, parameters, variables: that it was made of.
        values: one tensor ``(B, *shape)``, float64, for each parameter.
        tolerance: of the solutions, relative to their size or 1.
        of_differences: of the derivatives, likewise.
        step: of the differences, relative to the parameters' size.
    """
    generator = torch.Generator().manual_seed(len(values))
    ways, leaves = [], []
    for value, parameter in zip(values, parameters, strict=True):
        way = torch.randn(value.shape, dtype=torch.float64, generator=generator)
        if len(parameter.shape) == 2 and parameter.is_symmetric():
            way = 0.5 * (way + way.mT)
        ways.append(way * value.abs().amax().clamp_min(1e-3))
        leaves.append(value.clone().requires_grad_())
    outputs = layer(*leaves)
    weights = [torch.randn(out.shape, dtype=torch.float64, generator=generator) for out in outputs]
    for i in range(len(values[0])):

        def solutions(step: float, i: int = i) -> list[np.ndarray]:
            moved = [(value[i] + step * way[i]).numpy() for value, way in zip(values, ways, strict=True)]
            return clarabel(problem, parameters, variables, moved)

        for out, exact in zip(outputs, solutions(0.0), strict=True):
            size = max(1.0, float(np.abs(exact).max()))
            np.testing.assert_allclose(out[i].detach().numpy(), exact, rtol=0, atol=tolerance * size)
        loss = torch.stack([(w[i] * out[i]).sum() for w, out in zip(weights, outputs, strict=True)]).sum()
        gradients = torch.autograd.grad(loss, leaves, retain_graph=True)
        slope = sum(float((g[i] * way[i]).sum()) for g, way in zip(gradients, ways, strict=True))
        ahead, behind = solutions(step), solutions(-step)
        difference = sum(
            float((w[i].numpy() * (a - b)).sum()) for w, a, b in zip(weights, ahead, behind, strict=True)
        ) / (2 * step)
        assert abs(slope - difference) <= of_differences * max(1.0, abs(difference)), (i, slope, difference)
