"""The backward pass of a folded iteration: its adjoint system, examined and reported."""

import time
from dataclasses import replace

import torch
from torch import Tensor

from cvxfold.deadline import Deadline
from cvxfold.errors import ConvergenceError, ConvergenceWarning
from cvxfold.fold.examine import Place, examined
from cvxfold.fold.options import FoldSettings
from cvxfold.fold.tape import UpdateLinearization, UpdateTape
from cvxfold.gradient.verdict import Remedies
from cvxfold.layer.complaints import say
from cvxfold.layer.said import Said
from cvxfold.methods import AdjointMethod, AdjointSettings, AdjointSolution, Unrolled, solve_adjoint
from cvxfold.methods.by_name import Auto, ByProducts
from cvxfold.report.announce import Reports
from cvxfold.report.records import BackwardRecord
from cvxfold.report.report import Report

REMEDIES = Remedies(
    degenerate="make the fixed point unique and the update smooth there, or leave these instances out",
    inexact="solve the forward pass more accurately (a smaller tol, more max_iters, a tighter solver)",
    failed="scale the problem, or choose another update (docs/fold.md says how)",
    ill_conditioned="lower backward_tol, or choose another update (docs/fold.md says how)",
)


class Backward:
    """The backward pass of one call.

    Args:
        settings: of the iteration. place: where it is differentiated.
        solved: whether the forward pass reached its tolerance, ``(B,)``.
        report: of the call, to be added to. reports: where it is announced. said: what was warned of.
    """

    def __init__(
        self,
        settings: FoldSettings,
        place: Place,
        solved: Tensor,
        report: Report,
        reports: Reports,
        said: Said,
    ) -> None:
        self.settings, self.place, self.report = settings, place, report
        self._solved, self._reports, self._said = solved, reports, said

    @property
    def tape(self) -> UpdateTape:
        """Of y = F(x*)."""
        return self.place.tape

    @torch.no_grad()
    def adjoint(self, x_bar: Tensor) -> Tensor:
        """w for a loss gradient x̄ ``(B, m)``, with the record of the pass.

        Raises:
            ConvergenceError, DegenerateError: as the settings say.
            ValueError: the loss gradient is not finite.
        """
        began = time.perf_counter()
        bad = (~x_bar.isfinite().all(-1)).nonzero().squeeze(-1)
        if len(bad):
            raise ValueError(
                f"loss: expected a finite gradient on x, got others for instances {bad.tolist()}"
            )
        system = solve_adjoint(self.method, UpdateLinearization(self.tape), x_bar, self.adjoint_settings)
        self.record(x_bar, system, began)
        return system.w

    def record(self, x_bar: Tensor, system: AdjointSolution, began: float) -> None:
        """Examine an adjoint, report, and complain."""
        settings = self.settings
        diagnosis = examined(self.place, x_bar, system, settings.probe)
        record = BackwardRecord.of(system, diagnosis, self._solved, self.adjoint_settings.tol)
        record = replace(record, seconds=time.perf_counter() - began)
        self.report.set_backward(record)
        try:
            say(self.report, self._said, REMEDIES, settings.on_unconverged, settings.on_degenerate)
        finally:
            self._reports.notify(self.report)

    def complain(self, text: str, error: type[ConvergenceError], warning: type[ConvergenceWarning]) -> None:
        """Raise, or warn the first time, as the settings say."""
        if self.settings.on_unconverged == "raise":
            raise error(text)
        if self.settings.on_unconverged == "warn":
            self._said.once(text.partition(":")[0], text, warning)

    @property
    def method(self) -> AdjointMethod:
        """That which was asked for, or what suits the size."""
        method = self.settings.method
        assert not isinstance(method, Unrolled)
        if not self.settings.is_auto:
            return method
        return Auto() if self.tape.is_small else ByProducts()

    @property
    def adjoint_settings(self) -> AdjointSettings:
        """Of this pass; its time begins now."""
        settings = self.settings
        tol = settings.backward_tolerance(self.tape.layout.dtype)
        return AdjointSettings(tol, settings.backward_max_iters, Deadline.after(settings.time_limit))
