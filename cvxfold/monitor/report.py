"""The record of one call of a layer: what the forward pass reached, and how good the gradient is."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cvxfold.fold import Adjoint
from cvxfold.forward.solution import CODES, Solution, Status


@dataclass(frozen=True)
class ForwardRecord:
    """The forward pass, one entry per instance.

    Args:
        codes: status, as indices into :data:`cvxfold.forward.solution.CODES`, ``(B,)``.
        iterations: applications of the splitting operator, ``(B,)``.
        newton_steps: of the finish, ``(B,)``.
        primal_residual, dual_residual, gap: in SCS's definitions, ``(B,)``.
        seconds: wall time of the whole pass.
    """

    codes: Tensor
    iterations: Tensor
    newton_steps: Tensor
    primal_residual: Tensor
    dual_residual: Tensor
    gap: Tensor
    seconds: float

    @classmethod
    def of(cls, solution: Solution, seconds: float) -> "ForwardRecord":
        """The record of a solution."""
        residuals = solution.residuals
        return cls(
            solution.status, solution.iterations, solution.newton_steps,
            residuals.primal, residuals.dual, residuals.gap, seconds,
        )  # fmt: skip

    @classmethod
    def empty(cls, device: torch.device) -> "ForwardRecord":
        """The record of an empty batch."""
        none = torch.zeros(0, device=device)
        return cls(none.long(), none.long(), none.long(), none, none, none, 0.0)

    @property
    def status(self) -> list[Status]:
        """How each instance ended."""
        return [CODES[code] for code in self.codes.tolist()]


@dataclass(frozen=True)
class BackwardRecord:
    """The backward pass, one entry per instance.

    Args:
        method: of the adjoint system.
        iterations: until the method stopped, ``(B,)``.
        residual: relative residual of the adjoint system, measured afterwards, ``(B,)``.
        rate: the factor by which one iteration reduced the residual, ``(B,)``; NaN where unknown.
        converged: whether the residual is within the tolerance, ``(B,)``.
        history: relative residual by iteration, ``(K, B)``, NaN after an instance stopped.
        seconds: wall time of the whole pass.
    """

    method: str
    iterations: Tensor
    residual: Tensor
    rate: Tensor
    converged: Tensor
    history: Tensor
    seconds: float

    @classmethod
    def of(cls, adjoint: Adjoint, seconds: float) -> "BackwardRecord":
        """The record of an adjoint."""
        return cls(
            adjoint.method, adjoint.iterations, adjoint.residual, adjoint.rate,
            adjoint.converged, adjoint.history, seconds,
        )  # fmt: skip


@dataclass
class Report:
    """One call of a layer: ``forward`` from the start, ``backward`` once the gradient was asked for."""

    forward: ForwardRecord
    backward: BackwardRecord | None = field(default=None)

    def __str__(self) -> str:
        """A table of a few lines: counts, and the median and the worst over the batch."""
        forward, backward = self.forward, self.backward
        status = forward.status
        counts = ", ".join(f"{status.count(kind)} {kind}" for kind in Status if kind in status)
        lines = [
            f"forward   {counts or 'empty batch'} in {forward.seconds:.3g} s",
            _HEADER,
            _row("iterations", forward.iterations, "d"),
            _row("Newton steps", forward.newton_steps, "d"),
            _row("primal residual", forward.primal_residual, "e"),
            _row("dual residual", forward.dual_residual, "e"),
            _row("gap", forward.gap, "e"),
        ]
        if backward is None:
            return "\n".join([*lines, "backward  not run"])
        converged = int(backward.converged.sum())
        return "\n".join([
            *lines,
            f"backward  {converged} of {len(backward.converged)} converged"
            f" by {backward.method} in {backward.seconds:.3g} s",
            _HEADER,
            _row("iterations", backward.iterations, "d"),
            _row("residual", backward.residual, "e"),
            _row("contraction rate", backward.rate, "e"),
        ])  # fmt: skip


_HEADER = f"  {'':<18}{'median':>10}{'worst':>10}"


def _row(name: str, values: Tensor, kind: str) -> str:
    if values.numel() == 0:
        return f"  {name:<18}{'-':>10}{'-':>10}"
    numbers = values.detach().double()
    middle, worst = float(numbers.nanmedian()), float(numbers.nan_to_num(-1.0).amax())
    if numbers.isnan().all():
        return f"  {name:<18}{'-':>10}{'-':>10}"
    worst = float("nan") if kind == "e" and name == "residual" and numbers.isnan().any() else worst
    pattern = "{:>10.0f}" if kind == "d" else "{:>10.1e}"
    return f"  {name:<18}" + pattern.format(middle) + pattern.format(worst)
