"""The methods by name."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.fold.adjoint import AdjointMethod, AdjointSettings, relative_norm
from cvxfold.fold.direct import Direct
from cvxfold.fold.gmres import GMRES
from cvxfold.fold.lfpi import LFPI
from cvxfold.fold.linearization import Linearization


@dataclass(frozen=True)
class Auto:
    """The direct method; preconditioned GMRES goes on where refinement alone does not reach the tolerance."""

    name: ClassVar[str] = "auto"

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> tuple[Tensor, Tensor]:
        """Direct first; the instances that need more are taken out and solved again."""
        w, history = Direct().solve(phi, rhs, settings)
        residual = _residual(phi, w, rhs)
        rows = (~(residual <= settings.tol)).nonzero().squeeze(-1)
        if not len(rows):
            return w, history
        part, part_rhs = phi.take(rows), rhs[rows]
        again, more = GMRES(preconditioned=True).solve(part, part_rhs, settings)
        better = _residual(part, again, part_rhs) < residual[rows]
        w[rows] = torch.where(better.unsqueeze(-1), again, w[rows])
        extended = history.new_full((more.shape[0], history.shape[1]), torch.nan)
        extended[:, rows] = more
        return w, torch.cat([history, extended])


def _residual(phi: Linearization, w: Tensor, rhs: Tensor) -> Tensor:
    return relative_norm(rhs - (w - phi.vjp(w)), rhs)


METHODS: dict[str, AdjointMethod] = {
    "auto": Auto(),
    "direct": Direct(),
    "gmres": GMRES(),
    "lfpi": LFPI(),
}
