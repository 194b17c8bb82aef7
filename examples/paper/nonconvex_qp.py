"""A nonconvex quadratic program with predicted costs: two-stage, implicit, unrolled and folded.

    minimize ½ yᵀQy + pᵀ sin(y)    subject to Ay = x,  Gy ≤ h

The program and its data are those of Donti, Rolnick and Kolter, "DC3: a learning method for optimization with
hard constraints", 2021; as in the experiment of Kotary, Christopher, Dinh and Fioretto p differs from sample
to sample, is seen only through a random network, and is predicted, by a network trained on the regret
f(y*(p̂); p) − f(y*(p); p). In y = A⁺x + Zv, with Z a basis of the null space of A, only the inequalities are
left; there the black box, an interior-point method, and the projection of a gradient step are at home.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cvxpy as cp
import numpy as np
import torch
from decisions import Contest, Layer, Samples, contestants
from experiment import start
from torch import Tensor

from cvxfold.fold.updates import ProjectedGradient
from cvxfold.torch import CvxpyLayer

STEP = 0.1


@dataclass(frozen=True)
class Program:
    """The program without p and x.

    Args:
        Q: its diagonal, ``(n,)``. A: ``(e, n)``. G: ``(m, n)``. h: ``(m,)``.
        inverse: A⁺, ``(n, e)``. basis: Z, ``(n, n − e)``.
    """

    Q: Tensor
    A: Tensor
    G: Tensor
    h: Tensor
    inverse: Tensor
    basis: Tensor

    @classmethod
    def drawn(cls, n: int, equalities: int, inequalities: int, seed: int) -> "Program":
        """Q uniform, A and G normal, h = Σ|GA⁺|: then A⁺x is feasible for every x within ±1."""
        generator = np.random.default_rng(seed)
        Q = generator.random(n)
        A, G = generator.normal(size=(equalities, n)), generator.normal(size=(inequalities, n))
        inverse, basis = np.linalg.pinv(A), np.linalg.svd(A)[2][equalities:].T
        h = np.abs(G @ inverse).sum(1)
        return cls(*(torch.tensor(one) for one in (Q, A, G, h, inverse, basis.copy())))

    def objective(self, y: Tensor, p: Tensor, *_: Tensor) -> Tensor:
        """f, for each instance."""
        return (0.5 * self.Q * y.square() + p * y.sin()).sum(-1)

    def value(self, y: Tensor, p: Tensor, *_: Tensor) -> Tensor:
        """f again."""
        return self.objective(y, p)

    def slopes(self, y: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """∇f and the diagonal of ∇²f."""
        return self.Q * y + p * y.cos(), self.Q - p * y.sin()

    def solve(self, p: Tensor, *known: Tensor) -> Tensor:
        """By the interior-point method."""
        return interior_point(self, p, known[0])

    decide = solve

    def kkt(self, y: Tensor, p: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∇²f, A and the rows of G that bind, and ∂∇f/∂p = cos y."""
        binding = (self.h - y @ self.G.mT < 1e-6).to(y).unsqueeze(-1)
        active = torch.cat([self.A.expand(len(y), -1, -1), binding * self.G], -2)
        return torch.diag_embed(self.slopes(y, p)[1]), active, y.cos()


@torch.no_grad()
def interior_point(program: Program, p: Tensor, x: Tensor, tol: float = 1e-11) -> Tensor:
    """A local minimum by a primal-dual interior-point method in v, from v = 0, which is feasible.

    Nocedal and Wright, "Numerical Optimization", 2006, chapter 19, with K = GZ and s = h − Gy > 0 throughout:

        1. (Zᵀ∇²f Z + Kᵀ diag(λ/s) K + δI) dv = −(Zᵀ∇f + Kᵀ(μ/s)), δ ≥ 0 such that this is positive definite
        2. dλ = μ/s − λ + (λ/s) K dv
        3. a step that keeps s and λ positive and lowers f − μ Σ log s
        4. μ ← a tenth of sᵀλ/m, but not 0; stop where ‖Zᵀ∇f + Kᵀλ‖ and sᵀλ/m are small
    """
    origin, Z = x @ program.inverse.mT, program.basis
    K, bound = program.G @ Z, program.h - origin @ program.G.mT
    v, unit = x.new_zeros(len(x), Z.shape[1]), torch.eye(Z.shape[1], dtype=x.dtype)
    lam, mu = 1 / bound, torch.ones(len(x), 1, dtype=x.dtype)

    def merit(v: Tensor) -> Tensor:
        s = (bound - v @ K.mT).clamp_min(1e-300)
        return program.objective(origin + v @ Z.mT, p) - (mu * s.log()).sum(-1)

    for _ in range(200):
        s = bound - v @ K.mT
        first, second = program.slopes(origin + v @ Z.mT, p)
        gap = (s * lam).mean(-1, keepdim=True)
        if bool(((first @ Z + lam @ K).abs().amax(-1) + gap[:, 0] <= tol).all()):
            break
        matrix = Z.mT @ (second.unsqueeze(-1) * Z) + K.mT @ ((lam / s).unsqueeze(-1) * K)  # 1
        root, failed = torch.linalg.cholesky_ex(matrix)
        for power in range(-3, 10):
            if not bool(failed.any()):
                break
            matrix = torch.where(failed[:, None, None] > 0, matrix + 4.0**power * unit, matrix)
            root, failed = torch.linalg.cholesky_ex(matrix)
        right = -(first @ Z + (mu / s) @ K)
        dv = torch.cholesky_solve(right.unsqueeze(-1), root).squeeze(-1)
        dlam = mu / s - lam + lam / s * (dv @ K.mT)  # 2
        t = _within(s, -dv @ K.mT)  # 3
        before = merit(v)
        for _ in range(30):
            worse = merit(v + t * dv) > before + 1e-12 * (1 + before.abs())
            if not bool(worse.any()):
                break
            t = torch.where(worse.unsqueeze(-1), t / 2, t)
        v, lam = v + t * dv, lam + _within(lam, dlam) * dlam
        mu = (0.1 * ((bound - v @ K.mT) * lam).mean(-1, keepdim=True)).clamp_min(tol / 100)  # 4
    return origin + v @ Z.mT


def _within(value: Tensor, change: Tensor) -> Tensor:
    """The longest step, at most 1, after which a twentieth of a percent of each entry is left, ``(B, 1)``."""
    ratio = torch.where(change < 0, -value / change, torch.inf)
    return (0.9995 * ratio.amin(-1, keepdim=True)).clamp_max(1.0)


def step(program: Program) -> ProjectedGradient:
    """A projected gradient step, whose projection is a cone layer in v."""
    v, z = cp.Variable(program.basis.shape[1]), cp.Parameter(program.basis.shape[1])
    room = cp.Parameter(len(program.h))
    inside = (program.G @ program.basis).numpy() @ v <= room
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(v - z)), [inside]), [z, room], [v])

    def project(y: Tensor, _: Tensor, x: Tensor) -> Tensor:
        origin = x @ program.inverse.mT
        (nearest,) = layer((y - origin) @ program.basis, program.h - origin @ program.G.mT)
        return origin + nearest @ program.basis.mT

    return ProjectedGradient(program.objective, project, STEP)


def layers(program: Program, update: ProjectedGradient) -> dict[str, Layer]:
    """The ways from predicted costs to a decision with a gradient."""
    return contestants(program, update, lambda p, x: x @ program.inverse.mT, "A⁺x")


def main(argv: Sequence[str] | None = None) -> Contest:
    """Train all contestants; returns the contest."""
    given = start("nonconvex_qp", __doc__, argv)
    n, sizes, epochs = (8, (200, 100, 100), 3) if given.quick else (100, (8334, 833, 833), 5)
    sizes = given.scaled(sizes)
    program = Program.drawn(n, n // 2, n // 2, given.seed)
    generator = torch.Generator().manual_seed(given.seed)
    p, x = (
        2 * torch.rand(sum(sizes), size, generator=generator, dtype=torch.float64) - 1 for size in (n, n // 2)
    )
    contest = Contest(program, Samples.of(program, p, (x,), given.seed), sizes, epochs, given.seed)
    update = step(program)
    contest.held(given, "nonconvex QP", layers(program, update), update)
    return contest


if __name__ == "__main__":
    main()
