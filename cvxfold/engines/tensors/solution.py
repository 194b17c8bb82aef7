"""What a forward pass is asked and what it returns."""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from cvxfold.engines.reduction.scaling import Scaling
from cvxfold.engines.tensors.residuals import Residuals
from cvxfold.engines.tensors.splitting import RELAXATION, Iterate, Splitting


class Status(Enum):
    """How the forward pass ended for one instance."""

    SOLVED = "solved"
    UNCONVERGED = "unconverged"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    INVALID = "invalid"
    """Its parameters hold NaN, infinity or values outside of the declared set; it was not solved."""

    def __str__(self) -> str:
        return self.value


CODES = tuple(Status)
"""A status tensor holds indices into this tuple."""


_ABSENT = tuple(CODES.index(status) for status in (Status.INFEASIBLE, Status.UNBOUNDED, Status.INVALID))


def is_absent(codes: Tensor) -> Tensor:
    """Which statuses, ``(B,)``, say that there is no solution."""
    return torch.stack([codes == code for code in _ABSENT]).any(0)


FIRST_ROUND = 25
"""Applications of F before the first finish."""


@dataclass(frozen=True)
class ForwardSettings:
    """What the forward pass should reach and what it may spend.

    Args:
        eps_abs: absolute tolerance on the primal residual, the dual residual and the gap.
        eps_rel: the same relative to the sizes in :class:`cvxfold.engines.tensors.residuals.Residuals`.
        eps_infeasible: tolerance of a certificate of infeasibility or unboundedness.
        max_iters: applications of F at most; there is no finish before the first 25.
        refine: whether to finish by Newton steps.
        verbose: whether to print a line for each check.
        penalty: ρ for all of the batch; None lets it follow the residuals.
        relaxation: α in (0, 2).
        time_limit: seconds at most; None for no limit.
        acceleration: memory of Anderson acceleration in the later rounds; 0 for none.
    """

    eps_abs: float = 1e-8
    eps_rel: float = 1e-8
    eps_infeasible: float = 1e-7
    max_iters: int = 20_000
    refine: bool = True
    verbose: bool = False
    penalty: float | None = None
    relaxation: float = RELAXATION
    time_limit: float | None = None
    acceleration: int = 8

    @property
    def bare(self) -> bool:
        """A limit below the first round is a wish to see the iteration itself: no presolve, no finish."""
        return self.max_iters < FIRST_ROUND


@dataclass(frozen=True)
class Solution:
    """Solutions of a batch, in the units of the equilibrated program.

    Args:
        splitting: the operator (with the equilibrated program) that the fixed points belong to.
        scaling: how the program was equilibrated.
        point: the fixed points, with x, s, y and g.
        status: indices into ``CODES``, ``(B,)``.
        iterations: applications of F, ``(B,)``. newton_steps: of either kind, ``(B,)``.
        residuals: in the units of the original program.
        certificate: residual of the certificate, ``(B,)``; NaN where there is a solution or nothing is known.
        rescued: instances that another solver took over, ``(B,)``.
    """

    splitting: Splitting
    scaling: Scaling
    point: Iterate
    status: Tensor
    iterations: Tensor
    newton_steps: Tensor
    residuals: Residuals
    certificate: Tensor
    rescued: Tensor

    @property
    def solved(self) -> Tensor:
        """Which instances reached the tolerance, ``(B,)``."""
        return self.status == CODES.index(Status.SOLVED)

    def instances(self, status: Status) -> list[int]:
        """Indices of the instances that ended so."""
        return (self.status == CODES.index(status)).nonzero().squeeze(-1).tolist()
