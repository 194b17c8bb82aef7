"""The penalty ρ: where it starts, what would balance the residuals, and how far it may go."""

import torch
from torch import Tensor

from cvxfold.forward.residuals import Residuals
from cvxfold.program import ConeProgram

BALANCED = 2.5  # the penalty moves where the residuals are out of balance by more than this, squared
RANGE = (1e-5, 1e5)  # of equilibrated programs; beyond it M loses digits
_SOLVED = 1e-10  # what is left of residuals below this says nothing of the balance


def first_penalty(program: ConeProgram) -> Tensor:
    """A first guess, ``(1,)``: the dual's size over the primal's, as far as q and b tell, by the median."""
    return _natural(program).clamp(1e-4, 1e4).reshape(1)


def limits(program: ConeProgram) -> tuple[float, float]:
    """How far the penalty may go: :data:`RANGE` about 1, widened to hold as much about what is natural."""
    low, high = RANGE
    natural = float(_natural(program))
    return min(low, low * natural), max(high, high * natural)


def _natural(program: ConeProgram) -> Tensor:
    if not program.cone.dim or not program.q.shape[1]:
        return program.q.new_ones(())
    dual, primal = program.q.abs().amax(-1), program.b.abs().amax(-1)
    return torch.where((dual > 0) & (primal > 0), dual / primal, torch.ones_like(dual)).median()


def balance_of(s: Tensor, y: Tensor, otherwise: Tensor) -> Tensor:
    """The penalty under which s and R⁻¹y of a solution, ``(B, m)``, are alike in size, ``(B,)``.

    Where one of them vanishes, ``otherwise`` ``(1|B,)``.
    """
    if not s.shape[1]:
        return otherwise.expand(len(s))
    primal, dual = s.abs().amax(-1), y.abs().amax(-1)
    usable = (primal > 0) & (dual > 0) & primal.isfinite() & dual.isfinite()
    return torch.where(usable, dual / torch.where(usable, primal, 1.0), otherwise)


def imbalance(residual: Residuals) -> Tensor:
    """The factor for ρ that balances relative primal and dual residuals (as OSQP does); ``(B,)``."""
    tiny = torch.finfo(residual.primal.dtype).tiny
    primal = residual.primal / residual.primal_scale.clamp_min(tiny)
    dual = residual.dual / residual.dual_scale.clamp_min(tiny)
    ratio = (primal.clamp_min(tiny) / dual.clamp_min(tiny)).sqrt()
    ratio = torch.where(residual.worst() > _SOLVED, ratio, torch.ones_like(ratio))
    return ratio.nan_to_num(1.0).clamp(1e-2, 1e2)
