"""The comparison itself."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict, Unpack, overload

import cvxpy as cp
import torch
from torch import Tensor

from cvxfold.checks import Option, checked, completed, options_of, require_positive
from cvxfold.display.progress import Progress, told
from cvxfold.errors import SolverError
from cvxfold.studies.comparison.contestants import (
    USUAL_MODES,
    Contestant,
    ContestantAnswer,
    FoldedLayer,
    Upstream,
    modes,
)
from cvxfold.studies.comparison.differences import FiniteDifferences, finite_differences
from cvxfold.studies.comparison.findings import Row
from cvxfold.studies.comparison.inherited import merged, solve_options
from cvxfold.studies.comparison.question import LossError, Question
from cvxfold.studies.comparison.result import Comparison
from cvxfold.studies.losses import LossFunction
from cvxfold.torch import CvxpyLayer, Source


def _require_number_of_directions(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: expected how many directions, got {value!r}")


class CompareOptions(TypedDict, total=False):
    """The options of a comparison.

    Args:
        methods: cvxfold's, each what the layer's ``backward`` takes. The others are compared to the first.
        upstream: cvxpylayers' modes: "default"; "tight", the forward pass to 1e-10; "dense", the adjoint
            system by a dense factorization in place of LSQR; "tight, dense", both; "clarabel", by that
            solver. Or a mapping from names of one's own to ``solver_args`` of cvxpylayers.
        loss: of the outputs, one argument each; a random linear function unless given.
        finite_differences: how many random directions of the parameters' space to take finite differences
            of the loss in, for each instance, as the arbiter; 0 for none.
        rtol: what counts as agreement, in solutions and gradients.
        seed: of the random loss and directions.
        layer_options: more options of cvxfold's layers, which hold before those of a layer given, and ``gp``
            for all.
        progress: whether a terminal or a notebook shows how far this is, once it takes two seconds; or a
            function that is told what is being done, how many steps are done, and of how many.
    """

    methods: Annotated[Sequence[Any], Option(("auto", "lfpi"))]
    upstream: Annotated[str | Sequence[str] | Mapping[str, Mapping[str, Any]], Option(USUAL_MODES)]
    loss: Annotated[LossFunction | None, Option(None)]
    finite_differences: Annotated[int, Option(0, _require_number_of_directions)]
    rtol: Annotated[float, Option(1e-4, require_positive)]
    seed: Annotated[int, Option(0)]
    layer_options: Annotated[Mapping[str, Any] | None, Option(None)]
    progress: Annotated[Progress | bool, Option(True)]


_OPTIONS = options_of(CompareOptions)


@overload
def compare(
    problem: CvxpyLayer, values: Sequence[Any], /, **options: Unpack[CompareOptions]
) -> Comparison: ...


@overload
def compare(
    problem: CvxpyLayer, *, values: Sequence[Any], **options: Unpack[CompareOptions]
) -> Comparison: ...


@overload
def compare(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    values: Sequence[Any],
    **options: Unpack[CompareOptions],
) -> Comparison: ...


def compare(
    problem: cp.Problem | CvxpyLayer,
    parameters: Sequence[Any] | None = None,
    variables: Sequence[cp.Variable] | None = None,
    values: Sequence[Any] | None = None,
    **options: Unpack[CompareOptions],
) -> Comparison:
    """Solve and differentiate one problem by cvxpylayers and by cvxfold, and tell who is right.

    Either ``compare(problem, parameters, variables, values)`` or ``compare(layer, values)``. The problem is
    left as it was found. It makes no difference whether gradients are enabled where this is called.

    Args:
        problem: a DPP-compliant problem, or a :class:`cvxfold.torch.CvxpyLayer`, whose problem is taken and
            which cvxfold's methods solve as it does (``tol``, ``refine``, ``solver``, ``proximal``, …).
        parameters: the problem's; after a layer, the values. variables: to return, as for the layer.
        values: one tensor for each parameter, of its shape or ``(B, *shape)``.
        **options: of :class:`CompareOptions`.

    Raises:
        ValueError: values, names, options or the loss are not what they should be, the problem has no
            parameters, or the layer does not remember its problem because it came from a file or another
            process.
        TypeError: there is no option of a name that was given.

    Example:
        >>> print(cvxfold.compare(problem, [A, b], [x], [A_batch, b_batch], finite_differences=3))
    """
    asked = completed(_OPTIONS, options)
    checked(_OPTIONS, asked)
    arguments, given_methods = modes(asked["upstream"]), asked["methods"]
    methods: list[Any] = [given_methods] if isinstance(given_methods, str) else list(given_methods)
    if not methods:
        raise ValueError("methods: expected at least one, which the others are compared to")
    layer_options = dict(asked["layer_options"] or {})
    if "backward" in layer_options:
        raise ValueError("layer_options: backward is what the methods are; give methods=[…]")
    if isinstance(problem, CvxpyLayer):
        given = [value for value in (parameters, values) if value is not None]
        if len(given) != 1 or variables is not None:
            raise ValueError("compare: expected compare(layer, values): the layer knows its parameters")
        (values,) = given
        source = _source_of(problem)
        if layer_options.pop("gp", source.gp) != source.gp:
            raise ValueError(f"layer_options: gp: the layer was made with gp={source.gp}")
        layer_options = merged(solve_options(problem), layer_options)
    elif parameters is None or variables is None or values is None:
        raise ValueError("compare: expected compare(problem, parameters, variables, values)")
    else:
        source = Source(problem, tuple(parameters), tuple(variables), bool(layer_options.pop("gp", False)))
    with told(asked["progress"]) as advance, torch.inference_mode(False), torch.enable_grad():
        # Built here, where an unknown option or a problem that is not DPP is an error and not a row.
        layers = [CvxpyLayer(*_arguments(source), gp=source.gp, backward=m, **layer_options) for m in methods]
        question = Question.of(layers[0]._canonical.parameters, _listed(values), asked["loss"], asked["seed"])
        contestants: list[Contestant] = [FoldedLayer(source, method, layer_options) for method in methods]
        contestants += [Upstream(source, name, each) for name, each in arguments.items()]
        directions, rtol = asked["finite_differences"], asked["rtol"]
        run = _Run(source, question, contestants, directions, rtol, asked["seed"], advance)
        return run.result()


class _Run:
    """One comparison under way."""

    def __init__(
        self,
        source: Source,
        question: Question,
        contestants: list[Contestant],
        directions: int,
        rtol: float,
        seed: int,
        progress: Progress,
    ) -> None:
        self._source, self._question, self._contestants = source, question, contestants
        self._directions, self._rtol, self._seed = directions, rtol, seed
        self._progress = progress

    def result(self) -> Comparison:
        """Ask all, then the arbiter, then compare."""
        total = len(self._contestants) + (self._directions > 0)
        answers: list[ContestantAnswer | str] = []
        for done, contestant in enumerate(self._contestants):
            self._progress(contestant.name, done, total)
            answers.append(self._ask(contestant))
        differences: FiniteDifferences | None = None
        notes: list[str] = []
        if self._directions:
            self._progress("finite differences", total - 1, total)
            try:
                differences = finite_differences(self._source, self._question, self._directions, self._seed)
                notes.extend(differences.notes)
            except SolverError as error:
                notes.append(f"No finite differences: {_described(error)}.")
        self._progress("", total, total)
        reference = answers[0] if isinstance(answers[0], ContestantAnswer) else None
        rows = [
            self._row(contestant, answer, reference, differences)
            for contestant, answer in zip(self._contestants, answers, strict=True)
        ]
        return Comparison(tuple(rows), self._rtol, self._question.instances, differences, tuple(notes))

    def _ask(self, contestant: Contestant) -> ContestantAnswer | str:
        """The answer, or what went wrong."""
        try:
            return contestant.answer(self._question)
        except LossError:
            raise
        except Exception as error:
            return _described(error)

    def _row(
        self,
        contestant: Contestant,
        answer: ContestantAnswer | str,
        reference: ContestantAnswer | None,
        differences: FiniteDifferences | None,
    ) -> Row:
        folded = isinstance(contestant, FoldedLayer)
        if isinstance(answer, str):
            return Row(contestant.name, folded, error=answer)
        q = self._question
        solution, gradients = None, None
        if reference is not None:
            solution = q.solution_difference(answer.outputs, reference.outputs).cpu()
            each = q.gradient_difference(answer.gradients, reference.gradients, reference.outputs)
            gradients = {name: difference.cpu() for name, difference in each.items()}
        return Row(
            contestant.name,
            folded,
            solution,
            gradients,
            answer.residual,
            answer.forward_seconds,
            answer.backward_seconds,
            answer.peak_bytes,
            None if differences is None else differences.error(q, answer.gradients),
            answer.verdicts,
            answer.flat,
        )


def _source_of(layer: CvxpyLayer) -> Source:
    if layer.source is None:
        raise ValueError(
            "compare: this layer came from a file or another process and does not remember its problem; "
            "call compare(problem, parameters, variables, values)"
        )
    return layer.source


def _arguments(source: Source) -> tuple[cp.Problem, Sequence[cp.Parameter], Sequence[cp.Variable]]:
    return source.problem, source.parameters, source.variables


def _listed(values: Any) -> list[Any]:
    if isinstance(values, Tensor) or not isinstance(values, Sequence):
        raise ValueError(
            f"values: expected a list with one tensor for each parameter, got {type(values).__name__}"
        )
    return list(values)


def _described(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
