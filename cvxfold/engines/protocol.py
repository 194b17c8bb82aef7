"""The seam between a layer and the engines: cone programs in their own units, in and out.

Stored entries go in; x, y, s and, for the gradient, p, v come out. Presolve, scaling, penalty, factors and
what is kept from call to call are an engine's own affair: nobody outside of ``engines/`` knows of R, D or M.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from cvxfold.batches.records import Batched
from cvxfold.deadline import NEVER, Deadline
from cvxfold.engines.outcome import SOLVED, Ended, KeptPoints, Residuals, Start
from cvxfold.engines.settings import ForwardSettings
from cvxfold.gradient.adjoint import Adjoint
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import Screen
from cvxfold.methods import AdjointSettings, AdjointSolution
from cvxfold.methods.unrolled import Tape, Unrolled
from cvxfold.problem.program import Entries, Program


@dataclass(frozen=True)
class SolveRequest:
    """What is asked of a forward pass.

    Args:
        settings: tolerances and limits.
        start: a point to start from, NaN for instances without; None for none.
        rescue: whether another solver may take over what the engine does not reach.
        proximal: ε of the proximal term that the derivative is to have.
        deadline: of the pass.
        found: what the engine's shortcut has found for this very batch: only what that left is still to do.
    """

    settings: ForwardSettings
    start: Start | None = None
    rescue: bool = True
    proximal: float = 0.0
    deadline: Deadline = NEVER
    found: "Passage | None" = None


class Kept(Protocol):
    """What an engine keeps of a solution, for its own backward pass."""

    def take(self, index: Tensor) -> "Kept":
        """Keep the instances ``index`` ``(b,)``."""
        ...

    def release(self) -> None:
        """Forget what can be computed again: factors."""
        ...

    def least(self) -> "Kept | None":
        """What is needed of it in the end, where memory is short."""
        ...


@dataclass(frozen=True)
class Solution(Batched):
    """What a forward pass found, in the units of the program it was given.

    Args:
        engine: the name of the engine that found it.
        program: that program.
        x: ``(B, n)``. y, s: ``(B, m)``.
        status: indices into :data:`cvxfold.engines.outcome.CODES`, ``(B,)``.
        iterations: applications of F, ``(B,)``. newton_steps: of any kind, ``(B,)``.
        residuals: each ``(B,)``.
        certificate: residual of the proof that there is no solution, ``(B,)``; NaN where there is none.
        rescued: instances that another solver took over, ``(B,)``.
        penalty: ρ of the splitting iteration at each, ``(B,)``; NaN where nobody chose it. relaxation: α.
        proximal: ε of the proximal term of the derivative.
        kept: the engine's own; None where it keeps nothing. Any engine can go on without.
    """

    engine: str
    program: Program
    x: Tensor
    y: Tensor
    s: Tensor
    status: Tensor
    iterations: Tensor
    newton_steps: Tensor
    residuals: Residuals
    certificate: Tensor
    rescued: Tensor
    penalty: Tensor
    relaxation: float
    proximal: float = 0.0
    kept: Kept | None = None

    @property
    def solved(self) -> Tensor:
        """Which instances reached the tolerance, ``(B,)``."""
        return self.status == SOLVED

    def asked(self, entries: Entries) -> "Solution":
        """The same where a gradient is asked for on what reaches the moving ones of ``entries`` alone."""
        if self.program.entries is entries:
            return self
        return replace(self, program=replace(self.program, entries=entries))

    def release(self) -> None:
        """Forget what the engine can compute again."""
        if self.kept is not None:
            self.kept.release()

    def least(self) -> "Solution":
        """The same with as little as the backward pass can begin with."""
        return self if self.kept is None else replace(self, kept=self.kept.least())


class Engine(Protocol):
    """Solves batches of one structure of cone program and differentiates the solutions.

    A shallow copy of an engine (``copy.copy``) starts with what the engine remembers, and what the copy
    learns from its own calls stays its own.
    """

    @property
    def name(self) -> str:
        """As ``Solution.engine`` and reports have it."""
        ...

    def solve(self, program: Program, request: SolveRequest) -> Solution:
        """Solve each of B ≥ 1 instances, or tell why not; what it learns serves its next call.

        Raises:
            torch.OutOfMemoryError, RuntimeError, MemoryError: where memory does not suffice for the batch.
        """
        ...

    def differentiate(
        self, solution: Solution, x_bar: Tensor, y_bar: Tensor, settings: AdjointSettings
    ) -> tuple[Adjoint, Screen]:
        """The adjoint (p, v) of loss gradients x̄ ``(B, n)`` and ȳ ``(B, m)``, and a look at every instance.

        By the engine's best method: ``backward="auto"``.
        """
        ...

    def linearize(self, solution: Solution, thoroughly: bool = False) -> ProgramLinearization:
        """The splitting iteration at a solution, whichever engine found it: for every other method.

        ``thoroughly``: many products with it will be asked for.
        """
        ...

    def size(self, settings: ForwardSettings) -> tuple[int, int, int]:
        """Variables and rows of an instance as the engine works on it, and about how many bytes it takes."""
        ...


class Seen(Protocol):
    """What a shortcut's backward pass saw. It keeps no gradient alive, and nothing of the forward pass."""

    def system(self, settings: AdjointSettings) -> AdjointSolution:
        """The adjoint systems as reports tell of them."""
        ...

    def screen(self) -> Screen:
        """What was seen of the instances."""
        ...

    @property
    def all_flat(self) -> bool:
        """Whether all gradients are zero to rounding while the loss looks at the solutions."""
        ...


class Returned(Protocol):
    """What a shortcut's backward pass leaves."""

    @property
    def gradients(self) -> Sequence[Tensor | None]:
        """Of each parameter, in the shapes asked for, None where it was not wanted."""
        ...

    @property
    def doubtful(self) -> int:
        """How many instances call for a diagnosis or a word."""
        ...

    @property
    def seen(self) -> Seen:
        """For the record of the pass."""
        ...


class Passage(Protocol):
    """What a shortcut's forward pass leaves."""

    def outputs(self, last: bool) -> Sequence[Tensor]:
        """A layer's variables, within their bounds and in the shapes asked for, the caller's to change.

        ``last``: they are not asked for again, and need not be kept.
        """
        ...

    @property
    def unsolved(self) -> int:
        """How many instances are not solved."""
        ...

    @property
    def ended(self) -> Callable[[], Ended]:
        """Tells how the instances ended. It keeps nothing else of the pass alive."""
        ...

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """x ``(B, n)``, y and s ``(B, m)``."""
        ...

    def beginnings(self) -> Tensor:
        """For the shortcut's later passes: x, y and s side by side, and whatever follows, ``(B, ·)``."""
        ...

    def differentiate(
        self,
        bars: Sequence[Tensor | None],
        wanted: Sequence[bool],
        patterns: Sequence[Tensor],
        settings: AdjointSettings,
    ) -> Returned:
        """The gradients of the wanted parameters from loss gradients on the outputs, ``(B, ·)`` each.

        ``patterns``: of the gradients, whose entries are ``(B, size)``, row by row.

        Raises:
            MemoryError: memory does not suffice.
        """
        ...


class Shortcut(Protocol):
    """From a layer's parameters to its variables, and gradients back, in one call each way."""

    def serves(self, device: torch.device, request: SolveRequest) -> bool:
        """Whether it does what is asked, for parameters on a device."""
        ...

    def solve(
        self,
        parameters: Sequence[Tensor],
        batch: int,
        request: SolveRequest,
        start: Tensor | KeptPoints | None,
        patterns: Sequence[Tensor],
        keep: bool = False,
    ) -> Passage:
        """Solve.

        Args:
            parameters: each ``(1|B, ·)``, float64 and contiguous, in the layer's order.
            batch: B.
            request: what is asked.
            start: rows of beginnings, of x, y and s alone or with what follows, NaN for instances without;
                None for none; or where they are kept, to be renewed there if that can be.
            patterns: of the outputs, whose entries are ``(B, ·)``, row by row.
            keep: whether the beginnings of later passes will be asked for.

        Raises:
            MemoryError: memory does not suffice.
        """
        ...


class Unroller(Engine, Protocol):
    """An engine whose iterations can be put on the tape of automatic differentiation."""

    def unroll(
        self, program: Program, request: SolveRequest, method: Unrolled, tape: Tape, start: Solution | None
    ) -> tuple[Tensor, Tensor, Solution]:
        """Iterate on the tape from a solution, or from nothing.

        Returns:
            x ``(B, n)`` and y ``(B, m)``, differentiable in the program's values, and what they amount to as
            a solution.
        """
        ...
