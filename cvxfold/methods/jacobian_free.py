"""The Jacobian-free step: w = ū, as if Φ were zero.

Fung, Heaton, Li, McKenzie, Osher and Yin, "JFB: Jacobian-free backpropagation for implicit networks", 2022:
one step of unrolling. An approximation of relative residual ‖Φᵀū‖/‖ū‖, whatever the tolerance.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cvxfold.methods.adjoint import AdjointSettings, Attempt
from cvxfold.methods.history import relative_norm
from cvxfold.methods.linearization import Linearization


@dataclass(frozen=True)
class JacobianFree:
    """One step of unrolling."""

    exact: ClassVar[bool] = False

    def solve(self, phi: Linearization, rhs: Tensor, settings: AdjointSettings) -> Attempt:
        """ū itself, and its residual."""
        residual = relative_norm(phi.vjp(rhs), rhs)
        no = torch.zeros_like(residual, dtype=torch.bool)
        return Attempt(rhs.clone(), residual.unsqueeze(0), "jacobian-free (approximation)", no)
