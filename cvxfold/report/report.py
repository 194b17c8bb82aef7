"""The report on one call of a layer: what the forward pass reached, and how good the gradient is."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from cvxfold.engines.choose import why_no_rescue
from cvxfold.engines.outcome import Status
from cvxfold.gradient.verdict import NO_SOLUTION, Verdict
from cvxfold.report.records import BackwardRecord, ForwardRecord

FORWARD, BACKWARD = "forward pass", "backward pass"
"""What complaints are about."""


class Report:
    """One call of a layer: ``forward`` from the start, ``backward`` once the gradient was asked for.

    Records are made when somebody looks at them.

    Args:
        forward: the record of the forward pass, or what makes it.
        engine: that served the call.

    """

    def __init__(self, forward: ForwardRecord | Callable[[], ForwardRecord], engine: str = "none") -> None:
        self._forward = forward
        self._backward: BackwardRecord | Callable[[], BackwardRecord] | None = None
        self.engine = engine
        self._complaints: dict[str, dict[str, str] | Callable[[], dict[str, str]]] = {}

    @property
    def forward(self) -> ForwardRecord:
        """The forward pass."""
        if callable(self._forward):
            self._forward = self._forward()
        return self._forward

    @property
    def backward(self) -> BackwardRecord | None:
        """The backward pass; None before it."""
        if callable(self._backward):
            self._backward = self._backward()
        return self._backward

    def set_backward(self, record: BackwardRecord | Callable[[], BackwardRecord]) -> None:
        """Add the record of the backward pass, or what makes it."""
        self._backward = record
        self._complaints.pop(BACKWARD, None)

    @property
    def complaints(self) -> dict[str, str]:
        """What there is to complain of, in full, by kind ("backward pass: degenerate").

        Also where the warning was only a count, was left out because it had been given before, or was not
        wanted (``on_unconverged="ignore"``).
        """
        found: dict[str, str] = {}
        for subject, texts in self._complaints.items():
            if callable(texts):
                texts = self._complaints[subject] = texts()
            found |= {f"{subject}: {kind}": text for kind, text in texts.items()}
        return found

    def set_complaints(self, subject: str, texts: dict[str, str] | Callable[[], dict[str, str]]) -> None:
        """Note what there is to complain of in a pass, by kind, or what finds that when somebody looks."""
        self._complaints[subject] = texts

    def __str__(self) -> str:
        """A table of a few lines: counts, and the median and the worst over the batch."""
        forward, backward = self._here()
        figures, rescued = self._figures(forward).items(), int(forward.rescued.sum())
        also = f" ({rescued} rescued)" if rescued else ""
        lines = [
            f"forward   {_counts(forward.status) or 'empty batch'}{also} in {forward.seconds:.3g} s "
            f"by {self.engine}",
            _HEADER,
            *(_row(name, values, "e" if values.is_floating_point() else "d") for name, values in figures),
        ]
        if Status.UNCONVERGED in forward.status and (reason := self._why_no_rescue()) is not None:
            lines.append(f"rescue    none: {reason}")
        if backward is None:
            return "\n".join([*lines, "backward  not run"])
        known = backward.codes != NO_SOLUTION
        return "\n".join([
            *lines,
            f"backward  {_counts(backward.verdict)}{_flat(backward)} by {backward.method} in "
            f"{backward.seconds:.3g} s",
            _HEADER,
            _row("iterations", backward.iterations[known], "d"),
            _row("residual", backward.residual[known], "e"),
            _row("contraction rate", backward.rate, "e"),
            _row("forward's share", backward.forward_error[known], "e"),
            _row("error estimate", backward.error[known & ~backward.degenerate], "e"),
        ])  # fmt: skip

    def _here(self) -> tuple[ForwardRecord, BackwardRecord | None]:
        """Both records on the CPU."""
        backward = self.backward
        return self.forward.here, None if backward is None else backward.here

    def to_dict(self) -> dict[str, float]:
        """The same as one flat dictionary of numbers, as loggers take them (TensorBoard, W&B, MLflow).

        Keys are ``forward/…``, ``backward/…`` and ``verdict/…``; the last count instances. NaN stands where
        nothing is known.
        """
        forward, backward = self._here()
        status = Counter(forward.status)
        flat: dict[str, float] = {f"forward/{kind}": float(status[kind]) for kind in Status}
        for name, values in self._figures(forward).items():
            flat |= _spread(f"forward/{name.lower().replace(' ', '_')}", values)
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
        flat["backward/flat"] = float(backward.flat.sum())
        flat["backward/seconds"] = backward.seconds
        return flat

    @staticmethod
    def _figures(forward: ForwardRecord) -> dict[str, Tensor]:
        """What is told of the forward pass, each ``(b,)``, by the name that tables show."""
        present = forward.present
        return {
            "iterations": forward.iterations,
            "Newton steps": forward.newton_steps,
            "primal residual": forward.primal_residual[present],
            "dual residual": forward.dual_residual[present],
            "gap": forward.gap[present],
        }

    @staticmethod
    def _why_no_rescue() -> str | None:
        return why_no_rescue()


class FixedPointReport(Report):
    """One call of a folded iteration, of which there is one residual: ‖F(x) − x‖ / (1 + ‖x‖)."""

    @staticmethod
    def _figures(forward: ForwardRecord) -> dict[str, Tensor]:
        return {"iterations": forward.iterations, "residual": forward.residual}

    @staticmethod
    def _why_no_rescue() -> None:
        """Nobody looks for one."""


_HEADER = f"  {'':<18}{'median':>10}{'worst':>10}"


def key(kind: Verdict) -> str:
    """A verdict as part of a logger's key."""
    return str(kind).replace(" ", "_").replace("-", "_")


def _flat(backward: BackwardRecord) -> str:
    """How many gradients are zero to rounding, if any."""
    count = int(backward.flat.sum())
    return f", {count} flat" if count else ""


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
