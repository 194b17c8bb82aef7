"""The methods by name."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.fold.adjoint import AdjointMethod, AdjointSettings, Attempt, compact, relative_norm
from cvxfold.fold.anderson import Anderson
from cvxfold.fold.bicgstab import BiCGSTAB
from cvxfold.fold.direct import Direct
from cvxfold.fold.gmres import GMRES
from cvxfold.fold.jacobian_free import JacobianFree
from cvxfold.fold.least_squares import LeastSquares
from cvxfold.fold.lfpi import LFPI
from cvxfold.fold.linearization import Linearization

_KRYLOV_ITERS = 200  # what preconditioned GMRES has not solved by then has no solution
_LARGEST_GROWTH = 1e8  # ‖w‖/‖ū‖ beyond this means that I − Φ is singular to working precision


@dataclass(frozen=True)
class Auto:
    """Direct; preconditioned GMRES where refinement is not enough; least squares where neither is sane.

    An adjoint that only a singular system could make so large is no derivative: such an instance gets the
    least-norm least-squares adjoint, whose residual tells that there is none.

    Args:
        least_norm: whether to go on to least squares.
    """

    least_norm: bool = True
    exact: ClassVar[bool] = True

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """Each method for the instances that the one before left unsolved."""
        first = Direct().solve(phi, rhs, settings)
        w, history, used = first.w, first.history, first.method
        few = replace(settings, max_iters=min(settings.max_iters or _KRYLOV_ITERS, _KRYLOV_ITERS))
        rest = [(GMRES(preconditioned=True), few), (LeastSquares(), settings)]
        for method, limits in rest if self.least_norm else rest[:1]:
            rows = (~(_excess(phi, w, rhs) <= settings.tol)).nonzero().squeeze(-1)
            if not len(rows):
                break
            part, part_rhs = phi.take(rows), rhs[rows]
            attempt = method.solve(part, part_rhs, limits)
            better = _excess(part, attempt.w, part_rhs) < _excess(part, w[rows], part_rhs)
            w[rows] = torch.where(better.unsqueeze(-1), attempt.w, w[rows])
            more = attempt.history
            extended = history.new_full((more.shape[0], history.shape[1]), torch.nan)
            extended[:, rows] = more
            history = compact(torch.cat([history, extended]))
            used = f"{used}; {attempt.method} for {len(rows)}"
        return Attempt(w, history, used)


def _excess(phi: Linearization, w: Tensor, rhs: Tensor) -> Tensor:
    """The relative residual; infinite for an adjoint that only a singular system could make so large."""
    residual = relative_norm(rhs - (w - phi.vjp(w)), rhs)
    sane = w.norm(dim=-1) <= _LARGEST_GROWTH * rhs.norm(dim=-1)
    return torch.where(sane, residual, torch.inf)


METHODS: dict[str, AdjointMethod] = {
    "anderson": Anderson(),
    "auto": Auto(),
    "bicgstab": BiCGSTAB(),
    "direct": Direct(),
    "gmres": GMRES(),
    "jacobian_free": JacobianFree(),
    "least_squares": LeastSquares(),
    "lfpi": LFPI(),
    "preconditioned_anderson": Anderson(preconditioned=True),
    "preconditioned_bicgstab": BiCGSTAB(preconditioned=True),
    "preconditioned_gmres": GMRES(preconditioned=True),
    "preconditioned_lfpi": LFPI(preconditioned=True),
}
