"""Whether points are at rest: a residual below the tolerance does not say that x is near.

Where the optimality conditions are badly conditioned large changes of x leave the residual small. What tells
is Newton's step from there, J δu = g and δx = M⁻¹AᵀR(I − 2D) δu: one that is long beside x leads somewhere
else. δ makes it shorter than it should be where J is nearly singular, but not short. The lanes engine asks
the same (``kernels/polish.hpp``). Of a linear program a step about as long as x says nothing: its solutions
may be a face, along which J is singular.

Of what M loses the state shows nothing: x(u) = M⁻¹(…) leaves rounding of P x + q + Aᵀy = 0, and M⁻¹ of what
that may be is long where neither P nor A sees much of a direction.
"""

import torch
from torch import Tensor

from cvxfold.batches.near import places
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.adjoint_error import left_of_dual
from cvxfold.engines.tensors.jacobian import FactoredJacobian
from cvxfold.engines.tensors.residuals import infinity_norm
from cvxfold.engines.tensors.splitting import Iterate, Splitting

_ROUNDING = 1e-12  # of what is held against the tolerance: there is nothing to ask below
_FAR, _TOLERANCES = 1e-6, 100  # a step's length beside x, at least; in tolerances
_FACE = 1e-2  # of a linear program
_A_PART = 1e-2  # of u, beside which x counts as nothing


def in_doubt(tested: Tensor, settings: ForwardSettings) -> Tensor:
    """Which points are within tolerance, but not to rounding, ``(B,)``."""
    return (tested > _ROUNDING) & (tested <= settings.eps) & settings.refine


def moving(splitting: Splitting, point: Iterate, tested: Tensor, settings: ForwardSettings) -> Tensor:
    """Which of the points are within tolerance, and Newton's step from them long, ``(B,)``; after one wait.

    Args:
        point: of the splitting, whose program is equilibrated.
        tested: what was held against the tolerance, ``(B,)``.
        settings: tolerances; without ``refine`` they are all that is asked for.
    """
    found = torch.zeros_like(tested, dtype=torch.bool)
    if not settings.refine or not point.u.shape[-1]:
        return found
    rows = places(in_doubt(tested, settings))
    if not len(rows):
        return found
    splitting, point = splitting.take(rows), point.take(rows)
    jacobian, program = FactoredJacobian.at(splitting, point.u), splitting.program
    reflected = jacobian.D.apply(lambda d: 1 - 2 * d, jacobian.inverse(point.g))
    dx = splitting.solve_normal(program.A.rmv(splitting.R * reflected))
    size = infinity_norm(point.x).maximum(_A_PART * infinity_norm(point.u)).clamp(min=2.3e-308)
    length = infinity_norm(dx) / size
    along_a_face = program.linear & (length > _FACE)
    found[rows] = ~along_a_face & (length > _most(settings))
    return found


def lost(splitting: Splitting, point: Iterate, settings: ForwardSettings) -> Tensor:
    """Where M loses more of x than a point at rest may move, ``(B,)``, without a wait.

    Args:
        point, settings: as of :func:`moving`.
    """
    x = point.x
    if not settings.refine:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    parts = left_of_dual(splitting, point)
    length = sum(infinity_norm(splitting.solve_normal(of)) for of in parts)  # they might cancel
    natural = infinity_norm(splitting.solve_normal(splitting.program.q))  # x may cancel to nothing
    size = infinity_norm(x).maximum(natural).maximum(_A_PART * infinity_norm(point.u))
    return length > _most(settings) * size


def _most(settings: ForwardSettings) -> float:
    """How long a step may be beside x."""
    return max(_FAR, _TOLERANCES * settings.eps)
