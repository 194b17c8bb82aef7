"""What is measured of a solved batch: forward rates, singular values, the forward accuracy that is needed."""

import torch
from torch import Tensor

from cvxfold.backward import Entries, Folded, Optimum, SplittingLinearization
from cvxfold.diagnosis import error_of_step
from cvxfold.fold.adjoint import estimate_rate
from cvxfold.forward.splitting import Splitting

MEASURED_ITERATIONS, MEASURED_TOL = 5_000, 1e-13
_DENSE = 300  # rows up to which singular values are computed from the dense matrix
_SMALL_STEP = 1e-10


def forward_rate(splitting: Splitting, solution: Tensor) -> Tensor:
    """The rate of ‖uₖ₊₁ − uₖ‖ from a cold start, ``(B,)``."""
    u, steps = torch.zeros_like(solution), []
    size = solution.norm(dim=-1).clamp_min(torch.finfo(u.dtype).tiny)
    for k in range(MEASURED_ITERATIONS):
        following = splitting.run(u, 1)
        steps.append((following - u).norm(dim=-1) / size)
        u = following
        if k % 50 == 49 and bool((steps[-1] <= MEASURED_TOL).all()):
            break
    history = torch.stack(steps)
    first = history[:1].clamp_min(torch.finfo(u.dtype).tiny)
    return estimate_rate(torch.where(history > MEASURED_TOL, history / first, torch.nan))


def smallest_singular_value(phi: SplittingLinearization, bound: Tensor) -> Tensor:
    """Of I − Φ, ``(B,)``: of the dense matrix where it is small, else the bound by inverse iteration."""
    batch, m = phi.u.shape
    alpha = phi.splitting.alpha
    if not 0 < m <= _DENSE:
        return alpha * bound
    eye = torch.eye(m, dtype=phi.u.dtype, device=phi.u.device)
    J = torch.stack([phi.splitting.jacobian(phi.D, row.expand(batch, m)) for row in eye], dim=-1)
    return alpha * torch.linalg.svdvals(J).amin(-1)


def forward_tolerance(at: Optimum, entries: Entries, folded: Folded, tol: float) -> Tensor:
    """The relative forward residual that costs the gradient no more than ``tol`` to first order, ``(B,)``.

    A residual in a generic direction moves u by δu = J⁻¹g: its size is limited by what it does to the
    gradient and by the kinks that it must not reach.
    """
    u = at.u
    if not u.shape[1]:
        return u.new_full((len(u),), tol)
    size = u.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(u.dtype).tiny)
    places = torch.arange(1, u.shape[1] + 1, device=u.device, dtype=u.dtype)
    direction = torch.cos(2.3 * places.square() + places)
    g = _SMALL_STEP * size * direction / direction.norm()
    du = at.phi.newton.solve(g)
    margin = at.splitting.program.cone.margin(u)
    error = error_of_step(at, entries, du, folded).clamp_min(torch.finfo(u.dtype).tiny)
    reach = (margin / du.abs().clamp_min(torch.finfo(u.dtype).tiny)).amin(-1)
    return _SMALL_STEP * torch.minimum(tol / error, 0.5 * reach)
