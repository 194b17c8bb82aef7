"""The lanes engine: compiled kernels over packs of instances, on the CPU and on CUDA devices."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cvxfold.batches.records import overwritten
from cvxfold.engines.cuda.by_device import Batches
from cvxfold.engines.lanes.batch import Begin, Passed
from cvxfold.engines.lanes.binding import KernelSettings
from cvxfold.engines.lanes.figures import NEGLIGIBLE, SUSPECT, ended_of, screen_of, system_of
from cvxfold.engines.lanes.kept import Packs
from cvxfold.engines.lanes.maps import Maps
from cvxfold.engines.lanes.memory import CPU
from cvxfold.engines.lanes.passage import LanesPassage
from cvxfold.engines.lanes.pattern import Pattern
from cvxfold.engines.outcome import UNCONVERGED, Start
from cvxfold.engines.protocol import Solution, SolveRequest
from cvxfold.engines.settings import ForwardSettings
from cvxfold.engines.tensors.engine import TensorEngine
from cvxfold.gradient.adjoint import Adjoint
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import Screen
from cvxfold.methods import AdjointSettings
from cvxfold.problem.program import Entries, Program
from cvxfold.problem.structure import IndexArray

PENALTY = 1.0
"""ρ after equilibration, unless asked otherwise."""

LARGE, DENSE = 5e7, 0.2
"""Multiplications, and density, beyond which batched dense factorizations were measured to be faster: a dense
program of about 400 variables."""


@dataclass(frozen=True)
class Work:
    """What a factorization of K takes.

    Args:
        multiplications: of numbers. density: the share of its lower triangle that L fills.
    """

    multiplications: int
    density: float

    @property
    def is_for_dense_matrices(self) -> bool:
        """Whether a matrix library does it faster, whose cost does not depend on the zeros."""
        return self.multiplications > LARGE and self.density > DENSE


def _kernel_settings(settings: ForwardSettings, seconds: float) -> KernelSettings:
    """A negative number of seconds is no limit."""
    return KernelSettings(
        settings.eps_abs, settings.eps_rel, settings.eps_infeasible,
        PENALTY if settings.penalty is None else settings.penalty, settings.relaxation,
        seconds, settings.max_iters, settings.penalty is not None, settings.refine, settings.acceleration > 0,
    )  # fmt: skip


class LanesEngine:
    """Solves by the compiled kernels, and hands over to the tensor engine what they do not do.

    That is: what asks for the bare iteration (``refine=False`` and fewer than 25 iterations), a start from
    another solver or a printed table; data on devices without kernels; and instances that the kernels leave
    unsolved.

    Args:
        entries: of the programs. beside: the tensor engine.
    """

    name = "lanes"

    def __init__(self, entries: Entries, beside: TensorEngine) -> None:
        self._entries, self.beside = entries, beside
        self._asked: dict[tuple[bool, ...], Maps] = {}
        self._unlimited: tuple[ForwardSettings, KernelSettings] | None = None

    def solve(self, program: Program, request: SolveRequest) -> Solution:
        """Solve, each instance on its own.

        1. By the kernels, from a given point or from nothing.
        2. What they leave unsolved, by the tensor engine.
        """
        if not self.serves(program.values.q.device, request):
            return self.beside.solve(program, request)
        if isinstance(request.found, LanesPassage):
            passed, point = request.found.passed, request.found.points()
        else:
            device = program.values.q.device
            structure, batch, like = program.structure, program.batch, program.values.q
            x, y, s = (like.new_empty(batch, size) for size in (structure.n, structure.m, structure.m))
            point = x, y, s
            given = [value.detach().contiguous() for value in program.values]
            passed = self._batches.on(device).forward(
                given, batch, point, self.settings(request), Begin(_side_by_side(request.start), None)
            )  # 1
        solution = self._solution(program, request, passed, point)
        if passed.unsolved:
            solution = self._finished(solution, request)  # 2
        return solution

    def differentiate(
        self, solution: Solution, x_bar: Tensor, y_bar: Tensor, settings: AdjointSettings
    ) -> tuple[Adjoint, Screen]:
        """The adjoint by the factor at the solution, refined, with a look at each instance."""
        kept = solution.kept
        if not isinstance(kept, Packs) or solution.proximal:
            return self.beside.differentiate(solution, x_bar, y_bar, settings)
        p, v = torch.empty_like(solution.x), torch.empty_like(solution.y)
        bars = [x_bar.contiguous(), y_bar.contiguous(), None]
        figures, _ = self._batches.on(x_bar.device).backward(
            kept.passed, bars, [p, v], (settings.tol, SUSPECT, NEGLIGIBLE), True,
            self._maps_asked(solution.program.entries),
        )  # fmt: skip
        return Adjoint(p, v, system_of(figures, settings)), screen_of(figures)

    def linearize(self, solution: Solution, thoroughly: bool = False) -> ProgramLinearization:
        """F at the solution, as the tensor engine has it."""
        return self.beside.linearize(solution, thoroughly)

    def size(self, settings: ForwardSettings) -> tuple[int, int, int]:
        """Variables and rows, and bytes of an instance."""
        structure = self._entries.structure
        return structure.n, structure.m, self._batches.on(CPU).bytes_of(shared=False)

    def serves(self, device: torch.device, request: SolveRequest) -> bool:
        """Whether the kernels do what is asked."""
        settings = request.settings
        plain = not settings.bare and not settings.verbose
        claimed = request.start is not None and request.start.status is not None
        return plain and not claimed and self._batches.serve(device)

    def settings(self, request: SolveRequest) -> KernelSettings:
        """For the kernels."""
        asked, left = request.settings, request.deadline.left
        if left is not None:
            return _kernel_settings(asked, left)
        known = self._unlimited
        if known is None or known[0] is not asked:  # mostly those of the last call, which nobody changes
            known = self._unlimited = asked, _kernel_settings(asked, -1.0)
        return known[1]

    @cached_property
    def work(self) -> "Work":
        """What a factorization takes."""
        entries, multiplications = self._batches.on(CPU).counts
        size = self.pattern.n + self.pattern.m
        return Work(multiplications, entries / max(size * (size - 1) / 2, 1))

    @cached_property
    def pattern(self) -> Pattern:
        """Of the structure."""
        return Pattern.of(self._entries.structure)

    @cached_property
    def order(self) -> IndexArray:
        """Of elimination."""
        return self.pattern.order()

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self.pattern, self._maps_of(self._entries), self.order)

    def _maps_of(self, entries: Entries) -> Maps:
        return Maps.of_entries(self.pattern, [index.array for index in entries.moving])

    def _maps_asked(self, entries: Entries) -> Maps | None:
        """From those entries that the parameters reach which a gradient is asked for on; None: on all."""
        if entries.wanted is None:
            return None
        if entries.wanted not in self._asked:
            self._asked[entries.wanted] = self._maps_of(entries)
        return self._asked[entries.wanted]

    def _solution(
        self, program: Program, request: SolveRequest, passed: Passed, point: tuple[Tensor, Tensor, Tensor]
    ) -> Solution:
        """What the kernels found."""
        found, pattern = ended_of(passed.figures), self.pattern
        return Solution(
            engine=self.name,
            program=program,
            x=point[0],
            y=point[1],
            s=point[2],
            status=found.status,
            iterations=found.iterations,
            newton_steps=found.newton_steps,
            residuals=found.residuals,
            certificate=found.certificate,
            rescued=found.rescued,
            penalty=torch.full_like(found.certificate, request.settings.penalty or math.nan),
            relaxation=request.settings.relaxation,
            proximal=request.proximal,
            kept=Packs(passed, (pattern.P.shape[1], len(pattern.A_column)), program.structure),
        )

    def _finished(self, solution: Solution, request: SolveRequest) -> Solution:
        """With what the tensor engine makes of the unsolved instances."""
        rows = (solution.status == UNCONVERGED).nonzero().squeeze(-1)
        if not len(rows) or request.deadline.passed:
            return solution
        spent, settings = int(solution.iterations[rows].amax()), request.settings
        settings = replace(
            settings, max_iters=settings.max_iters - spent, patience=max(0, settings.patience - spent)
        )
        if settings.bare:
            return solution  # what is left would not come as far from a new start
        asked = replace(request, settings=settings, start=None)
        part = self.beside.solve(solution.program.take(rows), asked)
        kept = solution.kept
        assert isinstance(kept, Packs)
        kept.moved(rows, part.x, part.y, part.s)
        changed = {
            name: getattr(solution, name).index_copy(0, rows, getattr(part, name))
            for name in ("x", "y", "s", "status", "certificate", "rescued")
        }
        spent = {
            name: getattr(solution, name).index_add(0, rows, getattr(part, name))
            for name in ("iterations", "newton_steps")
        }
        residuals = overwritten(solution.residuals, rows, part.residuals)
        return replace(solution, **changed, **spent, residuals=residuals)


def _side_by_side(start: Start | None) -> Tensor | None:
    """x, y and s ``(B, n + 2m)``."""
    if start is None or start.x is None:
        return None
    return torch.cat([start.x, start.y, start.s], dim=1)
