"""A bilinear program with predicted costs: two-stage, implicit, unrolled and folded.

    maximize cᵀx + xᵀQy + dᵀy    subject to 0 ≤ x ≤ 1, Σx = k,  0 ≤ y ≤ 1, Σy = k

Two independent sets and a nonconvex objective, as in the experiment of Kotary, Christopher, Dinh and
Fioretto; c and d are predicted from features. Best decisions are vertices, found here by looking at all of
them: so their gradients are zero wherever there are any. As is usual for linear programs (Wilder, Dilkina and
Tambe, "Melding the data-decisions pipeline", 2019), training therefore goes through the maximum less
½ε(‖x‖² + ‖y‖²), which the black box reaches from the best vertex by turns: the best x for that y, the best y
for that x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from decisions import Contest, Layer, Samples, contestants, kkt_solution
from experiment import start
from torch import Tensor

from cvxfold.fold import projections
from cvxfold.fold.updates import ProjectedGradient

STEP = 0.1
ROUNDS, TURNS, STILL, BOUND = 50, 5, 1e-10, 1e-9


@dataclass(frozen=True)
class Program:
    """The program without c and d; a decision is the pair of x and y, ``(B, 2n)``, costs p are c and d.

    Args:
        Q: ``(n, n)``. total: k. smoothing: ε. vertices: of either set, ``(V, n)``.
    """

    Q: Tensor
    total: int
    smoothing: float
    vertices: Tensor

    @classmethod
    def drawn(cls, n: int, total: int, smoothing: float, seed: int) -> "Program":
        """Q normal, of norm about 1."""
        generator = torch.Generator().manual_seed(seed)
        Q = torch.randn(n, n, generator=generator, dtype=torch.float64) / (2 * n**0.5)
        places = torch.tensor(list(combinations(range(n), total)))
        return cls(Q, total, smoothing, torch.zeros(len(places), n, dtype=Q.dtype).scatter(1, places, 1.0))

    def value(self, y: Tensor, p: Tensor, *_: Tensor) -> Tensor:
        """What is lost: the objective's negative, ``(B,)``."""
        left, right = y.chunk(2, -1)
        return -(p * y).sum(-1) - ((left @ self.Q) * right).sum(-1)

    def objective(self, y: Tensor, p: Tensor) -> Tensor:
        """The same, smoothed."""
        return self.value(y, p) + 0.5 * self.smoothing * y.square().sum(-1)

    def project(self, y: Tensor, *_: Tensor) -> Tensor:
        """Onto both sets."""
        return torch.cat([projections.capped_simplex(z, self.total) for z in y.chunk(2, -1)], -1)

    @torch.no_grad()
    def decide(self, p: Tensor, *known: Tensor) -> Tensor:
        """The best pair of vertices: for each x the best y is where cᵀ… + Qᵀx is largest."""
        c, d = p.chunk(2, -1)
        gain = d.unsqueeze(1) + self.vertices @ self.Q
        top = gain.topk(self.total, -1)
        x = self.vertices[(c @ self.vertices.mT + top.values.sum(-1)).argmax(-1)]
        y = torch.zeros_like(x).scatter(1, (d + x @ self.Q).topk(self.total, -1).indices, 1.0)
        return torch.cat([x, y], -1)

    @torch.no_grad()
    def solve(self, p: Tensor, *known: Tensor) -> Tensor:
        """A maximum of the smoothed objective.

        1. For some turns the best x for that y, and the best y for that x.
        2. The maximum on the face that they have come to, which is a linear system.
        3. Where that is a maximum on both sets it is the answer; elsewhere on with 1.
        """
        c, d = p.chunk(2, -1)
        decision = self.decide(p)
        for _round in range(ROUNDS):
            x, y = decision.chunk(2, -1)
            for _turn in range(TURNS):  # 1
                x = projections.capped_simplex((c + y @ self.Q.mT) / self.smoothing, self.total)
                y = projections.capped_simplex((d + x @ self.Q) / self.smoothing, self.total)
            decision = torch.cat([x, y], -1)
            hessian, active = self.kkt(decision, p)[:2]  # 2
            level = (active @ decision.unsqueeze(-1)).squeeze(-1)
            there = kkt_solution(hessian, active, p, level)
            ascent = there + p - (hessian @ there.unsqueeze(-1)).squeeze(-1)  # 3
            done = (self.project(ascent) - there).abs().amax(-1, keepdim=True) <= STILL
            decision = torch.where(done, there, decision)
            if bool(done.all()):
                break
        return decision

    def kkt(self, y: Tensor, p: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∇²f, the sums and the active bounds, and ∂∇f/∂(c, d) = −1."""
        n, batch = len(self.Q), len(y)
        unit = torch.eye(2 * n, dtype=y.dtype)
        hessian = self.smoothing * unit
        hessian[:n, n:], hessian[n:, :n] = -self.Q, -self.Q.mT
        at_bound = (y < BOUND) | (y > 1 - BOUND)
        free = ~at_bound.view(batch, 2, n).all(-1)  # a sum says nothing of a vertex
        sums = free.unsqueeze(-1) * unit.view(2, n, 2 * n).sum(1)
        active = torch.cat([sums, torch.diag_embed(at_bound.to(y))], -2)
        return hessian.expand(batch, -1, -1), active, -torch.ones_like(p)


def layers(program: Program, update: ProjectedGradient) -> dict[str, Layer]:
    """The ways from predicted costs to a decision with a gradient."""
    return contestants(program, update, program.decide, "a vertex")


def main(argv: Sequence[str] | None = None) -> Contest:
    """Train all contestants; returns the contest."""
    given = start("bilinear", __doc__, argv)
    n, total, sizes, epochs = (8, 3, (200, 100, 100), 3) if given.quick else (12, 4, (2000, 500, 500), 10)
    sizes = given.scaled(sizes)
    program = Program.drawn(n, total, 0.6, given.seed)
    generator = torch.Generator().manual_seed(given.seed)
    costs = 2 * torch.rand(sum(sizes), 2 * n, generator=generator, dtype=torch.float64) - 1
    contest = Contest(program, Samples.of(program, costs, (), given.seed), sizes, epochs, given.seed)
    update = ProjectedGradient(program.objective, program.project, STEP)
    contest.held(given, "bilinear program", layers(program, update), update)
    return contest


if __name__ == "__main__":
    main()
