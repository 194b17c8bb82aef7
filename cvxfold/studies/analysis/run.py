"""``cvxfold.analyze``: how the backward pass of a layer converges on given values, and what that costs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cvxfold.display.progress import Progress, told
from cvxfold.engines.protocol import Engine, Solution
from cvxfold.fold import Folded
from cvxfold.gradient.adjoint import fold
from cvxfold.gradient.linearization import ProgramLinearization
from cvxfold.gradient.screen import screen
from cvxfold.layer.backward import examined
from cvxfold.layer.complaints import judge_forward
from cvxfold.layer.options import Options
from cvxfold.layer.request import CallRequest
from cvxfold.layer.said import Said
from cvxfold.methods import AdjointSettings, Auto
from cvxfold.methods.history import estimate_rate
from cvxfold.problem.values import ProgramValues
from cvxfold.report.records import BackwardRecord
from cvxfold.studies.analysis.folded import analyze_folded
from cvxfold.studies.analysis.forecast import as_tensor, forecasts, leading, radii_of, spectra_of
from cvxfold.studies.analysis.measures import (
    backward_history,
    distance_to_kinks,
    forward_rate,
    forward_tolerance,
    smallest_singular_value,
)
from cvxfold.studies.analysis.result import Analysis, LossOrigin
from cvxfold.studies.analysis.spectrum import Krylov, arnoldi
from cvxfold.studies.analysis.trial import Trial
from cvxfold.studies.losses import LossFunction, RandomLinearLoss
from cvxfold.torch import CvxpyLayer

_LOSSES = 5  # random ones, where none is known: the iterations vary with the loss by some ten percent


def analyze(
    layer: CvxpyLayer | Folded,
    *params: Any,
    loss: LossFunction | None = None,
    tol: float = 1e-6,
    seed: int = 0,
    costs: bool = True,
    progress: Progress | bool = True,
) -> Analysis:
    """Analyze the backward pass of a layer at given parameter values.

    Nothing that the layer remembers is changed, and its report stays that of its last call. Where that call
    had the same values, its solution is what is analyzed.

    Args:
        layer: a cvxfold layer, or an iteration that :func:`cvxfold.fold` folds; of the latter's costs nothing
            is measured.
        *params: as in a call of the layer: one tensor each, ``(*shape)`` or ``(B, *shape)``. Where some
            require gradients, the memory of unrolling is forecast for those.
        loss: a scalar function of the layer's outputs. None for the one whose gradient was taken of the last
            call's solution, if that is what is analyzed; else for random linear ones, of which the forecasts
            are the median: the spectral radius hardly depends on the loss, the iterations do a little.
        tol: the accuracy of the gradient to make forecasts for, as a residual of the adjoint system.
        seed: of the random losses.
        costs: whether to measure time and memory; that takes some dozens of short runs.
        progress: whether a terminal or a notebook shows how far this is, once it takes two seconds; or a
            function that is told what is being done, how many steps are done, and of how many.

    Raises:
        ValueError, TypeError: bad parameter tensors, or a ``tol`` outside of (0, 1).
        SolverError: instances without a solution; the message names them.
    """
    if not isinstance(layer, CvxpyLayer | Folded):
        given = f"{type(layer).__module__}.{type(layer).__qualname__}"
        raise TypeError(f"layer: expected a cvxfold.torch.CvxpyLayer, got {given}")
    if not isinstance(tol, int | float) or not 0 < tol < 1:
        raise ValueError(f"tol: expected a number between 0 and 1, got {tol!r}")
    with told(progress) as advance, torch.inference_mode(False), torch.enable_grad():  # whatever is outside
        if isinstance(layer, Folded):
            return analyze_folded(layer, params, loss, float(tol), seed, advance)
        _check_one_by_one(layer, params)
        given = [_usable(value) for value in params]
        return _analyze(layer, given, loss, float(tol), seed, costs, advance)


def _check_one_by_one(layer: CvxpyLayer, params: Sequence[Any]) -> None:
    """Raise a TypeError where tensors are given in a list."""
    listed = next((value for value in params if isinstance(value, list | tuple)), None)
    if listed is not None and not all(isinstance(each, int | float) for each in listed):
        names = ", ".join(spec.name for spec in layer.parameters_of_problem)
        raise TypeError(
            f"params: expected one tensor for each parameter, got a {type(listed).__name__}; give them one "
            f"by one, analyze(layer, {names})"
        )


def _usable(value: Tensor) -> Tensor:
    """Something that autograd takes: arrays become tensors, tensors of inference mode ordinary ones."""
    value = value if isinstance(value, Tensor) else torch.as_tensor(value)
    return value.clone() if value.is_inference() else value


def _analyze(
    layer: CvxpyLayer,
    params: Sequence[Tensor],
    loss: LossFunction | None,
    tol: float,
    seed: int,
    costs: bool,
    advance: Progress,
) -> Analysis:
    options = replace(layer.options, on_unconverged="ignore", on_unsolvable="raise", on_degenerate=None)
    advance("solving", 0, 4)
    arguments, values, recoveries = layer.program(*params)
    if arguments.batch == 0:
        raise ValueError("params: expected at least one instance, got an empty batch")
    batch = arguments.batch or 1
    with torch.no_grad():
        answer = layer.session.answer_to(values.detached(), CallRequest(batch, options))
    judge_forward(answer.report, options, Said())
    solution = answer.whole

    def outputs(x: Tensor, y: Tensor) -> list[Tensor]:
        found = [recovery(x, y).to(arguments.dtype) for recovery in recoveries]
        return [value.squeeze(0) for value in found] if arguments.batch is None else found

    advance("spectrum", 1, 4)
    if loss is not None:
        origin, bars = "given", [_loss_gradients(solution, outputs, loss)]
    elif answer.bars is not None:
        origin, bars = "last", [answer.bars]
    else:
        origin = "random"
        bars = [
            _loss_gradients(solution, outputs, RandomLinearLoss(seed + number)) for number in range(_LOSSES)
        ]
    with torch.no_grad():
        case = _Case.of(layer.session.engine, solution, origin, bars, tol)
        advance("rates", 2, 4)
        found = case.analysis(options, layer.session.engine.size(options.forward)[:2])
    if not costs:
        return found
    advance("costs", 3, 4)
    twin = copy.deepcopy(layer.session)  # has no memory, and listens to nobody
    wanted = [value.requires_grad for value in params]

    def program() -> ProgramValues:
        leaves = [
            p.detach().requires_grad_(w or not any(wanted)) for p, w in zip(params, wanted, strict=True)
        ]
        return layer.program(*leaves)[1]

    trial = Trial(twin, program, options, solution, case.bars, case.u_bar, tol)
    known = trial.costs()
    return replace(found, forecasts=[replace(one, cost=known.get(one.method)) for one in found.forecasts])


@dataclass(frozen=True)
class _Case:
    """A batch of adjoint systems, for the first loss, and what Arnoldi's process tells for all of them.

    Args:
        krylovs: for each loss one for each instance.
    """

    engine: Engine
    solution: Solution
    phi: ProgramLinearization
    origin: LossOrigin
    bars: tuple[Tensor, Tensor]
    u_bar: Tensor
    krylovs: list[list[Krylov]]
    tol: float

    @classmethod
    def of(
        cls,
        engine: Engine,
        solution: Solution,
        origin: LossOrigin,
        bars: list[tuple[Tensor, Tensor]],
        tol: float,
    ) -> "_Case":
        phi = engine.linearize(solution)
        u_bars = [phi.pull(*each) for each in bars]
        krylovs = [arnoldi(phi, u_bar) for u_bar in u_bars]
        return cls(engine, solution, phi, origin, bars[0], u_bars[0], krylovs, tol)

    def analysis(self, options: Options, size: tuple[int, int]) -> Analysis:
        """All but the costs, of a program whose ``size`` is that of what the engine works on."""
        phi, solution = self.phi, self.solution
        spectra = spectra_of(self.krylovs)
        settings = AdjointSettings()
        adjoint = fold(phi, *self.bars, Auto(), settings)
        seen = screen(phi, adjoint, *self.bars)
        _, diagnosis = examined(self.engine, solution, self.bars, adjoint, seen, settings)
        system = adjoint.system
        record = BackwardRecord.of(system, diagnosis, solution.solved, options.adjoint.tol)
        history = backward_history(phi, self.u_bar)
        return Analysis(
            rows=size[1],
            variables=size[0],
            device=str(phi.u.device),
            tol=self.tol,
            loss=self.origin,
            penalty=phi.penalty,
            relaxation=phi.relaxation,
            spectral_radius=as_tensor(radii_of(spectra), phi.u),
            eigenvalues=leading(spectra, phi.u),
            exact=torch.tensor([krylov.complete for krylov in self.krylovs[0]], device="cpu"),
            forward_rate=forward_rate(phi),
            backward_rate=estimate_rate(history[1:]),
            backward_history=history,
            margin=distance_to_kinks(phi),
            smallest_singular_value=smallest_singular_value(phi, diagnosis.smallest),
            forward_error=diagnosis.forward_error,
            verdict=record.verdict,
            flat=record.flat,
            forward_tol=forward_tolerance(phi, self.bars, adjoint, self.tol),
            forecasts=forecasts(self.krylovs, spectra, system, self.tol),
        )


def _loss_gradients(
    solution: Solution, outputs: Callable[[Tensor, Tensor], list[Tensor]], loss: LossFunction
) -> tuple[Tensor, Tensor]:
    """x̄ and ȳ of the loss at the solution."""
    with torch.enable_grad():
        x, y = solution.x.detach().requires_grad_(), solution.y.detach().requires_grad_()
        value = loss(*outputs(x, y))
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss: expected a scalar tensor that depends on the outputs, got {got}")
        x_bar, y_bar = torch.autograd.grad(value, (x, y), allow_unused=True, materialize_grads=True)
    if not bool(x_bar.isfinite().all() & y_bar.isfinite().all()):
        raise ValueError("loss: expected finite gradients on the outputs, got NaN or infinity")
    return x_bar, y_bar
