"""The report on one call of a layer: what the forward pass reached, and how good the gradient is."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from cvxfold.engines.choose import why_no_rescue
from cvxfold.engines.outcome import Status
from cvxfold.gradient.verdict import NO_SOLUTION, Verdict
from cvxfold.report.pass_summary import PassSummary, spread
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

    def passes(self) -> list[PassSummary]:
        """What is shown of each pass: one, or two after a backward pass."""
        forward, backward = self._here()
        rescued = int(forward.rescued.sum())
        also = f" ({rescued} rescued)" if rescued else ""
        tail = f"{also} in {forward.seconds:.3g} s by {self.engine}"
        found = [PassSummary("forward", forward.status, tail, self._figures(forward))]
        if backward is None:
            return found
        known, flat = backward.codes != NO_SOLUTION, int(backward.flat.sum())
        figures = {
            "iterations": backward.iterations[known],
            "residual": backward.residual[known],
            "contraction rate": backward.rate,
            "forward's share": backward.forward_error[known],
            "error estimate": backward.error[known & ~backward.degenerate],
        }
        also = f", {flat} flat" if flat else ""
        tail = f"{also} by {backward.method} in {backward.seconds:.3g} s"
        return [*found, PassSummary("backward", backward.verdict, tail, figures)]

    @property
    def why_unrescued(self) -> str | None:
        """Why no other solver took over where one was missed; None where none was."""
        return self._why_no_rescue() if Status.UNCONVERGED in self.forward.status else None

    def __str__(self) -> str:
        """A table of a few lines: counts, and the median and the worst over the batch."""
        lines: list[str] = []
        for one in self.passes():
            counts = ", ".join(f"{count} {kind}" for kind, count in one.counts) or "empty batch"
            lines += [f"{one.name:<10}{counts}{one.tail}", _HEADER]
            lines += [f"  {name:<18}{middle:>10}{worst:>10}" for name, middle, worst in one.rows]
            if one.name == "forward" and (reason := self.why_unrescued) is not None:
                lines.append(f"rescue    none: {reason}")
        return "\n".join(lines if self.backward is not None else [*lines, "backward  not run"])

    def _repr_html_(self) -> str:
        """The same for notebooks, with the instances whose verdict is none of the good ones."""
        from cvxfold.report.shown import report_shown

        return report_shown(self.passes(), self.backward is not None, self.why_unrescued, self.complaints)

    def plot(self, path: Any = None) -> Any:
        """Draw residuals and error estimates by instance, the history of an iterative method, and counts.

        The history is that of up to eight instances, the slowest among them.

        Args:
            path: where to save it, if anywhere.

        Returns:
            The matplotlib figure.

        Raises:
            ModuleNotFoundError: matplotlib is missing; the message says how to get it.
        """
        from cvxfold.report.plot import draw_report

        return draw_report(*self._here(), path)

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
            flat |= spread(f"forward/{name.lower().replace(' ', '_')}", values)
        flat["forward/rescued"] = float(forward.rescued.sum())
        flat["forward/seconds"] = forward.seconds
        if backward is None:
            return flat
        known = backward.codes != NO_SOLUTION
        verdicts = Counter(backward.verdict)
        flat |= {f"verdict/{key(kind)}": float(verdicts[kind]) for kind in Verdict}
        flat |= spread("backward/iterations", backward.iterations[known])
        flat |= spread("backward/residual", backward.residual[known])
        flat |= spread("backward/rate", backward.rate)
        flat |= spread("backward/forward_error", backward.forward_error[known])
        flat |= spread("backward/error", backward.error[known & ~backward.degenerate])
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
