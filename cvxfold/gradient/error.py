"""How large the error of a gradient is, as far as the residuals of both passes and the conditioning tell.

- *Forward error.* δu = J⁻¹ g is, to first order, how far u is from the solution. Where that is not
  negligible, the gradient at u + δu is computed as well, and the difference is the estimate.
- *Adjoint error.* What is left of the adjoint system, r = ū − Jᵀw, stands for an error J⁻ᵀr of the
  adjoint: the residual times the conditioning of the system in the one direction that counts.
"""

import torch
from torch import Tensor

from cvxfold.fold import AdjointSettings, Auto
from cvxfold.gradient.adjoint import DataGradients, Entries, Folded, Optimum, SplittingLinearization, fold

FELT = 1e-7  # parts of an adjoint or of a null vector below this fraction of it do not count
_NEGLIGIBLE = 1e-11  # δu, relatively, below which first-order terms are rounding


def forward_error(
    at: Optimum,
    entries: Entries,
    du: Tensor,
    size: Tensor,
    x_bar: Tensor,
    y_bar: Tensor,
    folded: Folded | None,
    settings: AdjointSettings,
) -> Tensor:
    """The relative error of the gradient that u's distance δu from the solution causes, ``(B,)``."""
    error = du.abs().amax(-1) / size
    rough = ~(error <= _NEGLIGIBLE)
    if bool(rough.any()):
        rows = rough.nonzero().squeeze(-1)
        part, bars = at.take(rows), (x_bar[rows], y_bar[rows])
        if folded is not None and bool((folded.adjoint.residual[rows] <= _NEGLIGIBLE).all()):
            here = folded.take(rows)
        else:  # what the method left unsolved is not the forward pass's fault
            here = fold(part, part.phi, *bars, Auto(least_norm=False), settings)
        error[rows] = error_of_step(part, entries, du[rows], *bars, here, settings)
    return error


def error_of_step(
    at: Optimum,
    entries: Entries,
    du: Tensor,
    x_bar: Tensor,
    y_bar: Tensor,
    here: Folded,
    settings: AdjointSettings | None = None,
) -> Tensor:
    """The relative change of the gradient on what parameters reach where u moves by ``du``, ``(B,)``.

    Args:
        at, here: the place, and the adjoint there.
        entries: of the original program.
        du: the step, ``(B, m')``.
        x_bar, y_bar: the loss gradients of the adjoint.
    """
    now, then = at.point, at.splitting.evaluate(at.u + du)
    phi = SplittingLinearization.at(at.splitting, then.u)
    there = fold(at, phi, x_bar, y_bar, Auto(least_norm=False), settings or AdjointSettings())
    dx, dy = at.lift(then.x - now.x, then.y - now.y)
    before = DataGradients(here.lifted_p, here.lifted_v, at.x, at.y, entries).on_moving()
    after = DataGradients(there.lifted_p, there.lifted_v, at.x + dx, at.y + dy, entries).on_moving()
    size = torch.maximum(before.norm(dim=-1), after.norm(dim=-1))
    size = torch.maximum(size, gradient_floor(at, entries, here))
    return _ratio((after - before).norm(dim=-1), size)


def adjoint_error(at: Optimum, entries: Entries, folded: Folded) -> tuple[Tensor, Tensor]:
    """The relative error of the gradient that r and t cause, and the strength of the gradient, ``(B,)``.

    With δw = J⁻ᵀr the first row moves by δp = M⁻¹(t − Aᵀδw), and δv = δw + RAδp.
    """
    splitting, A = at.splitting, at.splitting.program.A
    dw = splitting.alpha * at.phi.solve(folded.r)
    dp = splitting.solve_normal(folded.t - A.rmv(dw))
    dp, dv = _lifted_adjoint(at, dp, dw + splitting.R * A.mv(dp))
    change = DataGradients(dp, dv, at.x, at.y, entries).on_moving().norm(dim=-1)
    gradient = DataGradients(folded.lifted_p, folded.lifted_v, at.x, at.y, entries).on_moving().norm(dim=-1)
    floor = gradient_floor(at, entries, folded)
    size = torch.maximum(gradient, floor)
    return _ratio(change, size), FELT * _ratio(size, floor)


def _lifted_adjoint(at: Optimum, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A change of the adjoint in the original program; adjoints are not in the units of q and b."""
    size = at.scaling.size.unsqueeze(-1)
    p, v = at.lift(p, v)
    return p / size, v / size


def gradient_floor(at: Optimum, entries: Entries, folded: Folded) -> Tensor:
    """What counts as no gradient at all, ``(B,)``: a part of the one for w = 0 that rounding may leave."""
    first = _lifted_adjoint(at, folded.start, at.splitting.R * at.splitting.program.A.mv(folded.start))
    return FELT * DataGradients(*first, at.x, at.y, entries).on_moving().norm(dim=-1)


def _ratio(change: Tensor, of: Tensor) -> Tensor:
    """change/of; zero where nothing changes."""
    return torch.where(change == 0, change, change / of.clamp_min(torch.finfo(of.dtype).tiny))
