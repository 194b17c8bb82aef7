"""The penalty ρ: where it starts, what would balance the residuals, and how far it may go.

Both are judged by the terms of the residuals (:func:`cvxfold.engines.tensors.residuals.terms`), never by
their sums, in which terms may cancel: against the sums, rounding alone looks like a large residual, and the
penalty follows it until M has lost its digits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.engines.tensors.residuals import infinity_norm, terms

BALANCED = 2.5  # the penalty moves where the residuals are out of balance by more than this, squared
_RANGE = (1e-5, 1e5)  # about what is natural; beyond it M loses digits
_NOTHING = 1e-13  # where the largest entry of q and b is one
_SOLVED = 1e-10  # what is left of residuals below this says nothing of the balance


def first_penalty(program: ConeProgram) -> Tensor:
    """A first guess, ``(1|B,)``: the dual's size over the primal's, as far as q and b tell.

    Where the instances share P and A, one for all, so that they share a factor: the median.
    """
    if not program.cone.dim or not program.q.shape[1]:
        return program.q.new_ones(1)
    dual, primal = program.q.abs().amax(-1), program.b.abs().amax(-1)
    guess = torch.where((dual > 0) & (primal > 0), dual / primal, torch.ones_like(dual))
    guess = guess.clamp(1e-4, 1e4)
    return guess.median().reshape(1) if program.shared else guess


@dataclass(frozen=True)
class Balance:
    """What a point says about the penalty.

    Args:
        natural: the dual's size over the primal's, ``(B,)``: the penalty that its own terms ask for.
        factor: the factor for ρ that balances relative primal and dual residuals, as OSQP does, ``(B,)``.
    """

    natural: Tensor
    factor: Tensor

    @classmethod
    def at(cls, program: ConeProgram, x: Tensor, s: Tensor, y: Tensor) -> "Balance":
        """Of a point ``(B, n)``, ``(B, m)``, ``(B, m)``."""
        tiny = torch.finfo(x.dtype).tiny
        primal_size, dual_size = (infinity_norm(each).clamp_min(tiny) for each in terms(program, x, s, y))
        primal = infinity_norm(program.A.mv(x) + s - program.b)
        dual = infinity_norm(program.P.mv(x) + program.q + program.A.rmv(y))
        ratio = (primal / primal_size).clamp_min(tiny) / (dual / dual_size).clamp_min(tiny)
        # Where q = 0 or b = 0 terms may be rounding alone; so the data's size, which is one, counts too.
        worst = torch.maximum(primal / (1 + primal_size), dual / (1 + dual_size))
        factor = torch.where(worst > _SOLVED, ratio.sqrt(), torch.ones_like(ratio))
        known = (torch.minimum(primal_size, dual_size) > _NOTHING) & (primal_size + dual_size).isfinite()
        natural = torch.where(known, dual_size / primal_size, torch.ones_like(ratio))
        return cls(natural, factor.nan_to_num(1.0).clamp(1e-2, 1e2))

    @property
    def out(self) -> Tensor:
        """Which instances are out of balance, ``(B,)``."""
        return (self.factor > BALANCED) | (self.factor < 1 / BALANCED)

    def moved(self, penalty: Tensor) -> Tensor:
        """``penalty`` ``(1|B,)`` times the factor, kept near what is natural; ``(B,)``."""
        low, high = _RANGE
        return (penalty * self.factor).clamp(low * self.natural, high * self.natural)


def natural_penalty(program: ConeProgram, x: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """:attr:`Balance.natural` of a point."""
    return Balance.at(program, x, s, y).natural


def balance_of(program: ConeProgram, x: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """The penalty under which s and R⁻¹y of a solution are alike in size, ``(B,)``.

    The natural one where one of them vanishes: only rounding has a size there, and scaled up to the other's
    it would hide a kink.
    """
    natural = natural_penalty(program, x, s, y)
    low, high = _RANGE
    ratio = infinity_norm(y) / infinity_norm(s)  # NaN or out of range where either is zero or is not finite
    return torch.where((ratio >= low * natural) & (ratio <= high * natural), ratio, natural)
