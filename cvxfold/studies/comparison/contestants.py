"""Those who answer: cvxfold's layer with one of its methods, and cvxpylayers' in one of its modes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import cvxpy as cp
import torch
from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer
from torch import Tensor

from cvxfold.gradient.verdict import Verdict
from cvxfold.studies.comparison.question import LossError, Question
from cvxfold.studies.comparison.recorder import Recorder
from cvxfold.studies.measure import measure, timed
from cvxfold.torch import CvxpyLayer, Source

MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "tight": {"eps": 1e-10},
    "dense": {"mode": "dense"},
    "tight, dense": {"eps": 1e-10, "mode": "dense"},
    "clarabel": {"solve_method": "Clarabel"},
}
"""cvxpylayers' arguments: tolerances, how diffcp solves the adjoint system (LSQR, or dense), the solver."""

USUAL_MODES = ("default", "tight", "dense", "tight, dense")
"""Those asked unless others are named."""

Evaluate = Callable[..., Sequence[Tensor]]
"""From parameter tensors to output tensors."""


@dataclass(frozen=True)
class ContestantAnswer:
    """What a contestant found.

    Args:
        outputs: one tensor for each variable. gradients: one for each parameter, of its value's shape.
        residual: of the adjoint system, ``(B,)``; None where it could not be had.
        forward_seconds, backward_seconds: of the second call; the first one warms up.
        peak_bytes: of that call, forward and backward, as :class:`cvxfold.studies.measure.Measured` has it.
        verdicts: its own on the gradient of each instance, B of them; None where it gives none.
        flat: which gradients it says are zero to rounding, B of them; None where it says nothing.
    """

    outputs: list[Tensor]
    gradients: tuple[Tensor, ...]
    residual: Tensor | None
    forward_seconds: float
    backward_seconds: float
    peak_bytes: int | None
    verdicts: list[Verdict] | None = None
    flat: list[bool] | None = None


class Contestant(Protocol):
    """One who can be asked."""

    @property
    def name(self) -> str:
        """Package and method."""
        ...

    def answer(self, question: Question) -> ContestantAnswer:
        """Solve and differentiate; whatever is raised is an answer too."""
        ...


@dataclass(frozen=True)
class FoldedLayer:
    """cvxfold's layer.

    Args:
        source: the problem. method: the layer's ``backward``. options: its other options.
    """

    source: Source
    method: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The package and the method."""
        return f"cvxfold {self.method}"

    def answer(self, question: Question) -> ContestantAnswer:
        """Solve and differentiate; a missed tolerance shows in the residual and is no warning."""
        s = self.source
        options: dict[str, Any] = {"on_unconverged": "ignore"} | dict(self.options)
        layer = CvxpyLayer(s.problem, s.parameters, s.variables, gp=s.gp, backward=self.method, **options)
        _pass(layer, question)
        answer = _measured(layer, question, lambda: layer.report.backward)
        record = layer.report.backward
        if record is None:
            return answer
        return replace(answer, verdicts=record.verdict, flat=record.flat.tolist())


@dataclass(frozen=True)
class Upstream:
    """cvxpylayers' layer with its default solver, on the CPU: values elsewhere go there and back.

    It runs as it is. Its residual comes from a run before, by the same calls of diffcp (see
    :mod:`cvxfold.studies.comparison.recorder`), which also warms up.

    Args:
        source: the problem. mode: a name for its arguments. arguments: its ``solver_args``.
    """

    source: Source
    mode: str
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The package and the mode."""
        return f"cvxpylayers {self.mode}"

    def answer(self, question: Question) -> ContestantAnswer:
        """Solve and differentiate, without the warnings of diffcp and SCS."""
        recorder = Recorder()
        with warnings.catch_warnings(), torch.device("cpu"):  # not torch's default device, if that is another
            warnings.simplefilter("ignore")
            layer = self._layer(None, self.arguments)
            try:
                recording = self._layer(recorder, {})
                _pass(_on_cpu(recording, solver_args=self.arguments), question)
            except LossError:
                raise
            except Exception:  # if that is not the recorder's fault, the layer itself says so next
                recorder.residual = None
                _pass(_on_cpu(layer), question)
            return _measured(_on_cpu(layer), question, lambda: recorder)

    def _layer(self, solver: Recorder | None, arguments: Mapping[str, Any]) -> UpstreamLayer:
        s = self.source
        # A problem of its own: what layers cache on a Problem others find changed.
        problem = cp.Problem(s.problem.objective, s.problem.constraints)
        return UpstreamLayer(
            problem,
            list(s.parameters),
            list(s.variables),
            solver=solver,
            gp=s.gp,
            solver_args=dict(arguments),
        )


def modes(asked: str | Sequence[str] | Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """cvxpylayers' ``solver_args`` by the name of the mode.

    Args:
        asked: one of :data:`MODES` or several, or arguments by names of one's own.

    Raises:
        ValueError: there is no such mode; the message lists those there are.
    """
    if isinstance(asked, Mapping):
        return dict(asked)
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in MODES:
            raise ValueError(f"upstream: expected some of {list(MODES)}, got {name!r}")
    return {name: MODES[name] for name in names}


def _on_cpu(layer: UpstreamLayer, **call: Any) -> Evaluate:
    def evaluate(*values: Tensor) -> list[Tensor]:
        device = values[0].device
        return [output.to(device) for output in layer(*(value.cpu() for value in values), **call)]

    return evaluate


def _pass(evaluate: Evaluate, question: Question) -> tuple[list[Tensor], tuple[Tensor, ...], float, float]:
    """Outputs, gradients, and the seconds of both passes."""
    leaves = [value.clone().requires_grad_() for value in question.values]
    outputs, forward = timed(lambda: list(evaluate(*leaves)), question.device)
    gradients, backward = timed(lambda: question.gradients(outputs, leaves), question.device)
    return [output.detach() for output in outputs], gradients, forward, backward


def _measured(evaluate: Evaluate, question: Question, record: Callable[[], Any]) -> ContestantAnswer:
    """One pass, measured; ``record`` has its residual afterwards."""
    measured = measure(lambda: _pass(evaluate, question), question.device)
    outputs, gradients, forward, backward = measured.value
    found = record()
    residual = None if found is None or found.residual is None else found.residual.detach().cpu()
    return ContestantAnswer(outputs, gradients, residual, forward, backward, measured.peak_bytes)
