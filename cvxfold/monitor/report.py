"""The record of one call of a layer: what the forward pass reached, and how good the gradient is."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cvxfold.diagnosis import Diagnosis
from cvxfold.forward.solution import CODES, Solution, Status
from cvxfold.monitor.verdict import VERDICTS, Verdict, complaints, judge


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
        codes: verdicts, as indices into :data:`cvxfold.monitor.verdict.VERDICTS`, ``(B,)``.
        diagnosis: what the verdicts rest on: kinks, singular systems, the forward pass's share of the error.
        tol: on the residual.
    """

    method: str
    iterations: Tensor
    residual: Tensor
    rate: Tensor
    converged: Tensor
    history: Tensor
    seconds: float
    codes: Tensor
    diagnosis: Diagnosis
    tol: float

    @classmethod
    def of(
        cls,
        method: str,
        history: Tensor,
        residual: Tensor,
        rate: Tensor,
        seconds: float,
        diagnosis: Diagnosis,
        solved: Tensor,
        tol: float,
        approximate: bool,
    ) -> "BackwardRecord":
        """The record of an adjoint, with its verdicts.

        Args:
            solved: whether the forward pass reached its tolerance, ``(B,)``.
            approximate: whether the method is an approximation by design.
        """
        codes = judge(residual, rate, solved, diagnosis, tol, approximate)
        iterations = (~history.isnan()).sum(0)
        return cls(
            method, iterations, residual, rate, residual <= tol, history, seconds, codes, diagnosis, tol
        )

    @property
    def verdict(self) -> list[Verdict]:
        """How far each gradient can be trusted."""
        return [VERDICTS[code] for code in self.codes.tolist()]

    @property
    def degenerate(self) -> Tensor:
        """Where there is no unique derivative, ``(B,)``."""
        return self.diagnosis.degenerate

    @property
    def forward_error(self) -> Tensor:
        """The relative error of the gradient that the forward residual alone causes, estimated, ``(B,)``."""
        return self.diagnosis.forward_error

    def complaints(self) -> list[str]:
        """A sentence for each kind of gradient that is not to be trusted, with the remedy."""
        return complaints(self.codes, self.method, self.residual, self.rate, self.diagnosis, self.tol)


@dataclass
class Report:
    """One call of a layer: ``forward`` from the start, ``backward`` once the gradient was asked for."""

    forward: ForwardRecord
    backward: BackwardRecord | None = field(default=None)

    def __str__(self) -> str:
        """A table of a few lines: counts, and the median and the worst over the batch."""
        forward, backward = self.forward, self.backward
        lines = [
            f"forward   {_counts(forward.status) or 'empty batch'} in {forward.seconds:.3g} s",
            _HEADER,
            _row("iterations", forward.iterations, "d"),
            _row("Newton steps", forward.newton_steps, "d"),
            _row("primal residual", forward.primal_residual, "e"),
            _row("dual residual", forward.dual_residual, "e"),
            _row("gap", forward.gap, "e"),
        ]
        if backward is None:
            return "\n".join([*lines, "backward  not run"])
        return "\n".join([
            *lines,
            f"backward  {_counts(backward.verdict)} by {backward.method} in {backward.seconds:.3g} s",
            _HEADER,
            _row("iterations", backward.iterations, "d"),
            _row("residual", backward.residual, "e"),
            _row("contraction rate", backward.rate, "e"),
            _row("forward's share", backward.forward_error, "e"),
        ])  # fmt: skip

    def to_dict(self) -> dict[str, float]:
        """The same as one flat dictionary of numbers, as loggers take them (TensorBoard, W&B, MLflow).

        Keys are ``forward/…``, ``backward/…`` and ``verdict/…``; the last count instances. NaN stands where
        nothing is known.
        """
        forward, backward = self.forward, self.backward
        status = Counter(forward.status)
        flat: dict[str, float] = {f"forward/{kind}": float(status[kind]) for kind in Status}
        flat |= _spread("forward/iterations", forward.iterations)
        flat |= _spread("forward/newton_steps", forward.newton_steps)
        flat |= _spread("forward/primal_residual", forward.primal_residual)
        flat |= _spread("forward/dual_residual", forward.dual_residual)
        flat |= _spread("forward/gap", forward.gap)
        flat["forward/seconds"] = forward.seconds
        if backward is None:
            return flat
        verdicts = Counter(backward.verdict)
        flat |= {f"verdict/{str(kind).replace(' ', '_')}": float(verdicts[kind]) for kind in Verdict}
        flat |= _spread("backward/iterations", backward.iterations)
        flat |= _spread("backward/residual", backward.residual)
        flat |= _spread("backward/rate", backward.rate)
        flat |= _spread("backward/forward_error", backward.forward_error)
        flat["backward/seconds"] = backward.seconds
        return flat


_HEADER = f"  {'':<18}{'median':>10}{'worst':>10}"


def _counts(kinds: list[Any]) -> str:
    """How many of each kind, in the order of the enumeration."""
    counted = Counter(kinds)
    order: Any = type(kinds[0]) if kinds else ()
    return ", ".join(f"{counted[kind]} {kind}" for kind in order if counted[kind])


def _spread(name: str, values: Tensor) -> dict[str, float]:
    """Median and worst over the batch; a NaN among residuals is the worst."""
    if values.numel() == 0:
        return {f"{name}_median": float("nan"), f"{name}_max": float("nan")}
    numbers = values.detach().double()
    unknown = numbers.isnan()
    if bool(unknown.all()) or (bool(unknown.any()) and not name.endswith("rate")):
        return {f"{name}_median": float(numbers.nanmedian()), f"{name}_max": float("nan")}
    return {
        f"{name}_median": float(numbers.nanmedian()),
        f"{name}_max": float(numbers[~unknown].amax()),
    }


def _row(name: str, values: Tensor, kind: str) -> str:
    middle, worst = _spread(name, values).values()
    if values.numel() == 0 or bool(values.isnan().all()):
        return f"  {name:<18}{'-':>10}{'-':>10}"
    pattern = "{:>10.0f}" if kind == "d" else "{:>10.1e}"
    return f"  {name:<18}" + pattern.format(middle) + pattern.format(worst)
