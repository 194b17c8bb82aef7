"""The record of one call of a layer: what the forward pass reached, and how good the gradient is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cvxfold.engines.tensors.solution import CODES, Solution, Status, is_absent
from cvxfold.gradient.diagnosis import Diagnosis
from cvxfold.gradient.verdict import NO_SOLUTION, VERDICTS, Complaint, Verdict, complaints, judge


@dataclass(frozen=True)
class ForwardRecord:
    """The forward pass, one entry per instance.

    Args:
        codes: status, as indices into :data:`cvxfold.engines.tensors.solution.CODES`, ``(B,)``.
        iterations: applications of the splitting operator, ``(B,)``.
        newton_steps: of the finish, ``(B,)``.
        primal_residual, dual_residual, gap: in SCS's definitions, ``(B,)``; NaN for an invalid instance.
        residual: the largest of them, each relative to what it is measured against, ``(B,)``.
        certificate: where there is no solution, the residual of the proof of that
            (:mod:`cvxfold.engines.tensors.certificates`), ``(B,)``; elsewhere NaN.
        rescued: instances that our own method did not reach, so that another solver took over, ``(B,)``.
        seconds: wall time of the whole pass.
    """

    codes: Tensor
    iterations: Tensor
    newton_steps: Tensor
    primal_residual: Tensor
    dual_residual: Tensor
    gap: Tensor
    residual: Tensor
    certificate: Tensor
    rescued: Tensor
    seconds: float

    @classmethod
    def of(cls, solution: Solution, seconds: float) -> "ForwardRecord":
        """The record of a solution."""
        residuals = solution.residuals
        return cls(
            solution.status, solution.iterations, solution.newton_steps,
            residuals.primal, residuals.dual, residuals.gap, residuals.worst(),
            solution.certificate, solution.rescued, seconds,
        )  # fmt: skip

    @classmethod
    def joined(
        cls, records: Sequence[tuple[Tensor, "ForwardRecord"]], codes: Tensor, seconds: float
    ) -> "ForwardRecord":
        """The record of a batch with statuses ``codes``, from which instances its parts hold and theirs."""
        if len(records) == 1 and len(records[0][0]) == len(codes):
            return records[0][1]
        iterations, steps = torch.zeros_like(codes), torch.zeros_like(codes)
        unknown = torch.full((5, len(codes)), torch.nan, dtype=torch.float64, device=codes.device)
        primal, dual, gap, residual, certificate = unknown.unbind()
        no = torch.zeros_like(codes, dtype=torch.bool)
        whole = cls(codes, iterations, steps, primal, dual, gap, residual, certificate, no, seconds)
        for rows, record in records:
            for name, value in vars(record).items():
                if isinstance(value, Tensor):
                    getattr(whole, name)[rows] = value
        return whole

    @classmethod
    def empty(cls, device: torch.device) -> "ForwardRecord":
        """The record of an empty batch."""
        none = torch.zeros(0, device=device)
        return cls(none.long(), none.long(), none.long(), none, none, none, none, none, none.bool(), 0.0)

    @property
    def status(self) -> list[Status]:
        """How each instance ended."""
        return [CODES[code] for code in self.codes.tolist()]

    @property
    def present(self) -> Tensor:
        """Which instances have a solution or may have one, ``(B,)``."""
        return ~is_absent(self.codes)

    def instances(self, status: Status) -> list[int]:
        """Indices of the instances that ended so."""
        return (self.codes == CODES.index(status)).nonzero().squeeze(-1).tolist()


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
        codes: verdicts, as indices into :data:`cvxfold.gradient.verdict.VERDICTS`, ``(B,)``.
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
        exhausted: Tensor,
        diagnosis: Diagnosis,
        solved: Tensor,
        tol: float,
        approximate: bool,
    ) -> "BackwardRecord":
        """The record of an adjoint, with its verdicts.

        Args:
            exhausted: where the method's iterations or its time ran out, ``(B,)``.
            solved: whether the forward pass reached its tolerance, ``(B,)``.
            approximate: whether the method is an approximation by design.
        """
        codes = judge(residual, rate, exhausted, solved, diagnosis, tol, approximate)
        iterations = (~history.isnan()).sum(0)
        return cls(
            method, iterations, residual, rate, residual <= tol, history, seconds, codes, diagnosis, tol
        )

    @classmethod
    def joined(
        cls, records: Sequence[tuple[Tensor, "BackwardRecord"]], codes: Tensor, seconds: float
    ) -> "BackwardRecord":
        """The record of a batch with forward statuses ``codes`` from those of its pieces.

        Args:
            records: which instances, and theirs; the others have no solution.
        """
        if len(records) == 1 and len(records[0][0]) == len(codes):
            return replace(records[0][1], seconds=seconds)
        batch, device = len(codes), codes.device
        unknown = torch.full((batch,), torch.nan, dtype=torch.float64, device=device)
        no = torch.zeros(batch, dtype=torch.bool, device=device)
        longest = max((len(record.history) for _, record in records), default=0)
        history = unknown.expand(longest, batch).clone()
        iterations = torch.zeros(batch, dtype=torch.long, device=device)
        residual, rate, converged = unknown.clone(), unknown.clone(), no.clone()
        verdicts = torch.full_like(codes, NO_SOLUTION)
        for rows, record in records:
            iterations[rows], residual[rows], rate[rows] = record.iterations, record.residual, record.rate
            converged[rows], verdicts[rows] = record.converged, record.codes
            history[: len(record.history), rows] = record.history
        diagnosis = Diagnosis.joined([(rows, record.diagnosis) for rows, record in records], unknown)
        methods = dict.fromkeys(record.method for _, record in records)
        tol = records[0][1].tol if records else 0.0
        return cls(
            "; ".join(methods) or "none", iterations, residual, rate, converged, history, seconds, verdicts,
            diagnosis, tol,
        )  # fmt: skip

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

    @property
    def error(self) -> Tensor:
        """An estimate of the relative error of the gradient, all causes together, ``(B,)``.

        It tends to be too large rather than too small; docs/robustness.md tells how it was calibrated.
        Infinite where there is no unique gradient; summaries leave that out, as the verdict counts it.
        """
        return self.diagnosis.error

    def complaints(self) -> list[Complaint]:
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
        present = forward.present
        lines = [
            f"forward   {_counts(forward.status) or 'empty batch'} in {forward.seconds:.3g} s",
            _HEADER,
            _row("iterations", forward.iterations, "d"),
            _row("Newton steps", forward.newton_steps, "d"),
            _row("primal residual", forward.primal_residual[present], "e"),
            _row("dual residual", forward.dual_residual[present], "e"),
            _row("gap", forward.gap[present], "e"),
        ]
        if backward is None:
            return "\n".join([*lines, "backward  not run"])
        known = backward.codes != NO_SOLUTION
        return "\n".join([
            *lines,
            f"backward  {_counts(backward.verdict)} by {backward.method} in {backward.seconds:.3g} s",
            _HEADER,
            _row("iterations", backward.iterations[known], "d"),
            _row("residual", backward.residual[known], "e"),
            _row("contraction rate", backward.rate, "e"),
            _row("forward's share", backward.forward_error[known], "e"),
            _row("error estimate", backward.error[known & ~backward.degenerate], "e"),
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
        present = forward.present
        flat |= _spread("forward/primal_residual", forward.primal_residual[present])
        flat |= _spread("forward/dual_residual", forward.dual_residual[present])
        flat |= _spread("forward/gap", forward.gap[present])
        flat["forward/rescued"] = float(forward.rescued.sum())
        flat["forward/seconds"] = forward.seconds
        if backward is None:
            return flat
        known = backward.codes != NO_SOLUTION
        verdicts = Counter(backward.verdict)
        flat |= {f"verdict/{key(kind)}": float(verdicts[kind]) for kind in Verdict}
        flat |= _spread("backward/iterations", backward.iterations[known])
        flat |= _spread("backward/residual", backward.residual[known])
        flat |= _spread("backward/rate", backward.rate)
        flat |= _spread("backward/forward_error", backward.forward_error[known])
        flat |= _spread("backward/error", backward.error[known & ~backward.degenerate])
        flat["backward/seconds"] = backward.seconds
        return flat


_HEADER = f"  {'':<18}{'median':>10}{'worst':>10}"


def key(kind: Verdict) -> str:
    """A verdict as part of a logger's key."""
    return str(kind).replace(" ", "_").replace("-", "_")


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
