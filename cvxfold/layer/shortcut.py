"""A call by its engine's shortcut: where all is plain, parameters become variables in one step each way.

1. The kernels solve. Instances that they leave unsolved, and bad parameters, are for the general way.
2. The outputs are handed out, with a report whose records are made when somebody looks at them.
3. The kernels differentiate. Gradients that call for a diagnosis are folded again, with all means.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cvxfold.batches.pieces import in_pieces
from cvxfold.batches.records import overwritten
from cvxfold.deadline import Deadline
from cvxfold.engines.outcome import Ended, KeptPoints
from cvxfold.engines.protocol import Passage, Returned, Seen, Shortcut, Solution
from cvxfold.errors import OutOfMemoryError
from cvxfold.gradient.adjoint import FoldedAdjoint
from cvxfold.gradient.diagnosis import Diagnosis
from cvxfold.layer.answer import Answer
from cvxfold.layer.backward import better_of, folded_again, refolded
from cvxfold.layer.options import Options
from cvxfold.layer.parts import LayerParts
from cvxfold.layer.plain import PlainArguments, version_of
from cvxfold.layer.request import CallRequest
from cvxfold.layer.taped import TapedCall
from cvxfold.methods import AdjointSettings
from cvxfold.problem.gradients import DataGradients
from cvxfold.problem.program import Program
from cvxfold.problem.recover import given_back
from cvxfold.problem.structure import OutputSpec
from cvxfold.problem.values import ProgramValues
from cvxfold.report.records import BackwardRecord, ForwardRecord
from cvxfold.report.report import Report


class ShortCall:
    """One call of a layer by the shortcut.

    Args:
        parts: of the layer. shortcut: of its engine.
        options: of the call. arguments: of the call.
    """

    def __init__(
        self, parts: LayerParts, shortcut: Shortcut, options: Options, arguments: PlainArguments
    ) -> None:
        self._parts, self._shortcut, self.options = parts, shortcut, options
        self.arguments, self._bars, self._request = arguments, None, options.request

    def solve(self, start: Tensor | KeptPoints | None, keep: bool = False) -> Passage | None:
        """Step 1, from a passage's beginnings or from nothing; ``keep``: its own will be asked for.

        None where the shortcut does not serve, or memory is short: the general way has halves.
        """
        form = self.arguments.form
        if not self._shortcut.serves(form.device, self._request):
            return None
        started = time.perf_counter()
        given = [_in_rows(value) for value in self.arguments.tensors]
        self._given = [(value, version_of(value)) for value in given]
        try:
            self._passage = self._shortcut.solve(
                given, form.instances, self._request, start, form.outputs, keep
            )
        except MemoryError:
            return None
        self._seconds = time.perf_counter() - started
        return self._passage

    def report(self, quietly: bool = False) -> Report:
        """Step 2: the report, from now on the layer's last; ``quietly``: nobody is called back."""
        record = partial(_forward_record, self._passage.ended, self._seconds)
        self._report = Report(record, self._parts.session.engine.name)
        self._parts.session.remember(self._report)
        self._parts.session.remember_call(self)
        if not quietly:
            self._parts.session.notify(self._report)
        return self._report

    def terms(self, last: bool = False) -> tuple[Tensor, ...]:
        """Step 2: the variables' terms in their shapes and the outputs' dtype; ``last``: for the last time.

        None is a view, which could not be changed in place where it is differentiable.
        """
        found, dtype = self._passage.outputs(last), self.arguments.form.dtype
        if dtype is torch.float64:
            return tuple(found)
        return tuple(out.to(dtype) for out in found)

    def generally(self, parameters: Sequence[Tensor]) -> tuple[ProgramValues, TapedCall]:
        """The stored entries as functions of the parameters, and passes that have this call's answer."""
        values = self._values_of([value.to(torch.float64) for value in parameters])
        answer = self.answer_to(values.detached(), [value.requires_grad for value in parameters])
        passes = TapedCall(self._parts.session, answer.request)
        passes.answer = answer
        return values, passes

    def answer_to(self, values: ProgramValues, wanted: Sequence[bool] | None = None) -> Answer:
        """What the kernels found as the general way has it, with this call's report; ``values``: its data."""
        request = CallRequest(self.arguments.form.instances, self.options, found=self._passage, wanted=wanted)
        answer = self._parts.session.solve_quietly(values, request)
        answer.report = self._report
        return answer

    def answered(self, values: ProgramValues) -> Answer | None:
        """What was found, with the last loss gradients, if its data were these values."""
        if any(version_of(value) != version for value, version in self._given):
            return None
        known = self._values_of([value.detach() for value, _ in self._given])
        if not known.same_as(values):
            return None
        answer = self.answer_to(known)
        answer.bars = None if self._bars is None else self.on_points(self._bars)
        return answer

    def _values_of(self, parameters: Sequence[Tensor]) -> ProgramValues:
        """The stored entries of parameters, of which some have no batch dimension."""
        batched = zip(parameters, self.arguments.form.batched, strict=True)
        return self._parts.parametrize([value if given else value.unsqueeze(0) for value, given in batched])

    def on_points(self, bars: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Loss gradients on x ``(B, n)`` and y ``(B, m)`` from those on the variables' terms."""
        structure, form = self._parts.session.entries.structure, self.arguments.form
        points = [
            torch.zeros(form.instances, size, dtype=torch.float64, device=form.device)
            for size in (structure.n, structure.m)
        ]
        return given_back(bars, self._parts.outputs, (points[0], points[1]))

    @property
    def outputs(self) -> Sequence[OutputSpec]:
        """How the variables are made of their terms."""
        return self._parts.outputs

    @property
    def hands_out_terms(self) -> bool:
        """Whether that is all there is to them."""
        return self._parts.hands_out_terms

    @property
    def passage(self) -> Passage:
        """What the kernels left."""
        return self._passage

    def differentiate(self, bars: Sequence[Tensor | None], wanted: Sequence[bool]) -> Sequence[Tensor | None]:
        """Step 3: gradients of the parameters (of logarithms, where the problem has those).

        Args:
            bars: loss gradients on the terms. wanted: for which parameters.

        Returns:
            Of each instance, as :class:`cvxfold.layer.plain.CallForm` has their shapes; None where it is not
            wanted.
        """
        started = time.perf_counter()
        form, settings = self.arguments.form, self.options.adjoint
        flat = self._bars = [None if bar is None else _in_rows(bar) for bar in bars]
        try:
            returned = self._passage.differentiate(flat, wanted, form.gradients, settings)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"out of memory: the gradients of {form.instances:,} instances do not fit, and beside them "
                "little is needed; use a smaller batch"
            ) from error
        if returned.doubtful:
            self._look_closer(returned, flat, wanted, started)
        else:
            seconds = time.perf_counter() - started
            self._report.set_backward(partial(_plain_record, returned.seen, settings, seconds))
            self._parts.session.notify(self._report)
        self._parts.session.say_if_flat(returned.seen, self.options)
        return returned.gradients

    def _look_closer(
        self, returned: Returned, bars: Sequence[Tensor | None], wanted: Sequence[bool], started: float
    ) -> None:
        """Fold suspicious instances again and put their gradients in place; report, and complain."""
        options, seen = self.options, returned.seen.screen()
        settings = replace(options.adjoint, deadline=Deadline.after(options.forward.time_limit))
        system, diagnosis = returned.seen.system(settings), Diagnosis.unsuspicious(seen)
        doubtful = seen.suspicious | seen.ill_conditioned(settings.tol)
        rows, session = doubtful.nonzero().squeeze(-1), self._parts.session
        if len(rows):

            def work(some: Tensor) -> tuple[FoldedAdjoint, Diagnosis, Tensor]:
                return self._again(some, bars, wanted, returned, seen.felt, settings)

            for piece in in_pieces(rows, work, lambda: session.engine.size(options.forward)):
                again, part, taken = piece.value
                system = folded_again(system, piece.rows[taken], again.take(taken).system)
                diagnosis = overwritten(diagnosis, piece.rows, part)
        record = BackwardRecord.of(system, diagnosis, torch.ones_like(system.converged), settings.tol)
        record = replace(record, seconds=time.perf_counter() - started)
        self._report.set_backward(record)
        session.judge_backward(self._report, options)

    def _again(
        self,
        rows: Tensor,
        bars: Sequence[Tensor | None],
        wanted: Sequence[bool],
        returned: Returned,
        felt: Tensor,
        settings: AdjointSettings,
    ) -> tuple[FoldedAdjoint, Diagnosis, Tensor]:
        """The adjoint and the diagnosis of the instances ``rows`` ``(b,)``; better gradients go in place."""
        session, form = self._parts.session, self.arguments.form
        if any(version_of(value) != version for value, version in self._given):
            raise RuntimeError(
                "one of the parameters needed for the gradient has been modified by an inplace operation "
                "between the layer's forward and backward passes"
            )
        leaves = []
        for (value, _), batched, wants in zip(self._given, form.batched, wanted, strict=True):
            value = value.detach()
            part = value.index_select(0, rows) if batched else value.expand(len(rows), *value.shape).clone()
            leaves.append(part.requires_grad_(wants))
        with torch.enable_grad():
            values = self._parts.parametrize(leaves)
        program = Program(session.entries.asked(wanted), values.detached(), len(rows))
        solution = self._solution(program, rows)
        x_bar, y_bar = (bar[rows] for bar in self.on_points(bars))
        again, part = refolded(session.engine, solution, (x_bar, y_bar), felt, settings)
        first, seen = returned.seen.system(settings).take(rows), returned.seen.screen().take(rows)
        taken, part = better_of(first, seen, again, part)
        data = DataGradients(again.p, again.v, solution.x, solution.y, session.entries)
        on = [
            one(len(value) == 1 < len(rows))
            for one, value in zip((data.on_P, data.on_q, data.on_A, data.on_b), values, strict=True)
        ]
        pairs = [(value, gradient) for value, gradient in zip(values, on, strict=True) if value.requires_grad]
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = torch.autograd.grad(
            [value for value, _ in pairs], inputs, [gradient for _, gradient in pairs], allow_unused=True
        )
        targets = [target for target in returned.gradients if target is not None]
        for target, gradient in zip(targets, gradients, strict=True):
            better = 0.0 if gradient is None else gradient.reshape(len(rows), -1)[taken]
            target.view(form.instances, -1)[rows[taken]] = better
        return again, part, taken

    def _solution(self, program: Program, rows: Tensor) -> Solution:
        """Of the instances ``rows`` ``(b,)``, without what the shortcut keeps."""
        x, y, s = (value[rows] for value in self._passage.points())
        found: Ended = self._passage.ended().take(rows)
        return Solution(
            engine=self._parts.session.engine.name,
            program=program,
            x=x,
            y=y,
            s=s,
            status=found.status,
            iterations=found.iterations,
            newton_steps=found.newton_steps,
            residuals=found.residuals,
            certificate=found.certificate,
            rescued=found.rescued,
            penalty=torch.full_like(found.certificate, self.options.forward.penalty or math.nan),
            relaxation=self.options.forward.relaxation,
            proximal=self.options.proximal,
        )


def _in_rows(value: Tensor) -> Tensor:
    """In float64, numbers one after the other in memory; the tensor itself, if it is so already."""
    if value.dtype is torch.float64 and value.is_contiguous() and not value.is_neg():
        return value
    return value.detach().to(torch.float64).resolve_neg().contiguous()


def _forward_record(ended: Callable[[], Ended], seconds: float) -> ForwardRecord:
    return ForwardRecord.of(ended(), seconds)


def _plain_record(seen: Seen, settings: AdjointSettings, seconds: float) -> BackwardRecord:
    """The record of a backward pass in which nothing is suspicious."""
    screen, system = seen.screen(), seen.system(settings)
    solved = torch.ones_like(system.converged)
    return BackwardRecord.of(system, Diagnosis.unsuspicious(screen), solved, settings.tol, seconds)
