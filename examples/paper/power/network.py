"""An electrical network in steady state: the alternating-current power-flow equations, with torch.

With voltages V∠θ at the buses, the admittance matrix Y = G + jB and θᵢⱼ = θᵢ − θⱼ, what flows out of bus i is

    Pᵢ = Vᵢ Σⱼ Cᵢⱼ Vⱼ     C = G cos θᵢⱼ + B sin θᵢⱼ
    Qᵢ = Vᵢ Σⱼ Sᵢⱼ Vⱼ     S = G sin θᵢⱼ − B cos θᵢⱼ

(Zimmerman, Murillo-Sánchez and Thomas, "MATPOWER", IEEE Trans. Power Syst. 26, 2011). All is per unit, and
batched: V and θ are ``(…, N)``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

NO_LIMIT = 9900.0  # MVA: what the IEEE cases write for a line that nothing limits


@dataclass(frozen=True)
class Network:
    """N buses and g generators. The state is x = (θ, V, p, q), θ without the reference: ``(…, 2N − 1 + 2g)``.

    Args:
        G, B: real and imaginary part of the admittance matrix, ``(N, N)``.
        at: who is generated where, zeros and ones, ``(N, g)``.
        free: the buses other than the reference, whose angle is ``angle``.
        low, high: bounds on x; angles have none.
        load: nominal active and reactive demand, ``(2, N)``.
        cost: nominal cost of p in dollars an hour, c₂p² + c₁p + c₀, as ``(3, g)``.
    """

    G: Tensor
    B: Tensor
    at: Tensor
    free: Tensor
    angle: float
    low: Tensor
    high: Tensor
    load: Tensor
    cost: Tensor

    @classmethod
    def of(cls, case: dict[str, Any]) -> "Network":
        """From a case in pypower's format.

        Raises:
            ValueError: lines have limits, costs are no quadratics: what is not modelled here.
        """
        from pypower.api import ext2int, makeYbus

        case = ext2int(case)
        bus, gen, base = case["bus"], case["gen"], case["baseMVA"]
        limits = case["branch"][:, 5]
        if ((limits > 0) & (limits < NO_LIMIT)).any():
            raise ValueError(
                f"case: expected lines without limits, got limits of {limits.min()} MVA and more"
            )
        if (case["gencost"][:, 0] != 2).any() or (case["gencost"][:, 3] != 3).any():
            raise ValueError("case: expected quadratic costs of generation, got others")
        Y: Any = np.asarray(makeYbus(base, bus, case["branch"])[0].todense())
        at = np.zeros((len(bus), len(gen)))
        at[gen[:, 0].astype(int), np.arange(len(gen))] = 1
        reference = bus[:, 1] == 3
        angles = np.full(len(bus) - 1, np.inf)
        return cls(
            G=torch.tensor(Y.real),
            B=torch.tensor(Y.imag),
            at=torch.tensor(at),
            free=torch.tensor(np.flatnonzero(~reference)),
            angle=float(np.deg2rad(bus[reference, 8][0])),
            low=torch.tensor(np.concatenate([-angles, bus[:, 12], gen[:, 9] / base, gen[:, 4] / base])),
            high=torch.tensor(np.concatenate([angles, bus[:, 11], gen[:, 8] / base, gen[:, 3] / base])),
            load=torch.tensor(bus[:, 2:4].T / base),
            cost=torch.tensor(case["gencost"][:, 4:7].T * np.array([[base**2], [base], [1.0]])),
        )

    @property
    def buses(self) -> int:
        """N."""
        return len(self.G)

    @property
    def generators(self) -> int:
        """The number g."""
        return self.at.shape[1]

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """θ and V ``(…, N)``, p and q ``(…, g)``."""
        g = self.generators
        free, V, p, q = x.split([self.buses - 1, self.buses, g, g], dim=-1)
        angles = torch.full_like(V, self.angle).index_copy(-1, self.free, free)
        return angles, V, p, q

    def waves(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """C and S, ``(…, N, N)``."""
        between = theta.unsqueeze(-1) - theta.unsqueeze(-2)
        cos, sin = between.cos(), between.sin()
        return self.G * cos + self.B * sin, self.G * sin - self.B * cos

    def mismatch(self, x: Tensor, load: Tensor) -> Tensor:
        """Demand and outflow minus generation at the buses, active and then reactive, ``(…, 2N)``.

        Args:
            x: ``(…, n)``.
            load: ``(…, 2, N)``.
        """
        theta, V, p, q = self.parts(x)
        C, S = self.waves(theta)
        active, reactive = V * _times(C, V), V * _times(S, V)
        generated = torch.stack([p @ self.at.T, q @ self.at.T], dim=-2)
        return (torch.stack([active, reactive], dim=-2) + load - generated).flatten(-2)

    def jacobian(self, x: Tensor) -> Tensor:
        """Of the mismatch, ``(…, 2N, n)``."""
        theta, V, _, _ = self.parts(x)
        C, S = self.waves(theta)
        CV, SV = _times(C, V), _times(S, V)
        rows, columns = V.unsqueeze(-1), V.unsqueeze(-2)
        by_angle = torch.cat([
            rows * S * columns - torch.diag_embed(V * SV), torch.diag_embed(V * CV) - rows * C * columns
        ], dim=-2)  # fmt: skip
        by_size = torch.cat([rows * C + torch.diag_embed(CV), rows * S + torch.diag_embed(SV)], dim=-2)
        generation = -torch.block_diag(self.at, self.at).expand(*x.shape[:-1], -1, -1)
        return torch.cat([by_angle[..., self.free], by_size, generation], dim=-1)

    def curvature(self, x: Tensor, multipliers: Tensor) -> Tensor:
        """The Hessian of multipliersᵀ mismatch, ``(…, n, n)``, nothing of which depends on the generators.

        With a = λG − μB, b = λB + μG it is VᵀMV, M = a cos θᵢⱼ + b sin θᵢⱼ; let N = ∂M/∂θᵢⱼ. Then

            VV: M + Mᵀ =: A    Vθ: diag(DV) − D diag(V), D = N − Nᵀ    θθ: diag(V) A diag(V) − diag(V ∘ AV)
        """
        theta, V, _, _ = self.parts(x)
        C, S = self.waves(theta)
        active, reactive = (half.unsqueeze(-1) for half in multipliers.split(self.buses, dim=-1))
        M, N = active * C + reactive * S, reactive * C - active * S
        A, D = M + M.mT, N - N.mT
        AV, DV = _times(A, V), _times(D, V)
        columns = V.unsqueeze(-2)
        mixed = (torch.diag_embed(DV) - D * columns)[..., self.free]
        angles = columns.mT * A * columns - torch.diag_embed(V * AV)
        angles = angles[..., self.free, :][..., self.free]
        found = torch.cat([torch.cat([angles, mixed.mT], -1), torch.cat([mixed, A], -1)], dim=-2)
        both = 2 * self.generators
        return torch.nn.functional.pad(found, (0, both, 0, both))


def _times(A: Tensor, x: Tensor) -> Tensor:
    return (A @ x.unsqueeze(-1)).squeeze(-1)
