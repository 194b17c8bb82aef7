"""The arbiter: central finite differences of the loss, which need solutions only and no adjoint.

The solutions are Clarabel's where it is installed, which shares nothing with cvxfold's iteration; Newton
steps on the optimality conditions then bring them to machine precision, without which the differences would
show little. Each derivative is extrapolated from four step sizes; the table tells how good it is. Ridders,
"Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.engines.choose import available_solvers
from cvxfold.errors import SolverError
from cvxfold.studies.comparison.moves import Move, kept_at_the_edge, moves
from cvxfold.studies.comparison.question import NEGLIGIBLE, Question
from cvxfold.torch import CvxpyLayer, Source

LARGEST_STEP, SHRINK, LEVELS = 1e-2, 4.0, 4  # of steps along a move of length 1 relative to the values

Solve = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class FiniteDifferences:
    """Derivatives of the loss along random directions, for each instance, and last for shared parameters.

    Args:
        solver: of the forward passes.
        moves: k for the instances, then k for the shared parameters, if there are any.
        slopes: ``(U, k)`` with U = B, or B + 1 where parameters are shared.
        uncertainty: how far off these may be, ``(U, k)``.
        floor: what the norm of the slopes counts for at least, ``(U,)``: 1e-4 of what the most influential
            output (:meth:`cvxfold.studies.comparison.question.Question.influence`) would give in a move of
            this length. Without it, where the gradient is zero, right answers would be off by rounding over
            0.
        notes: sentences on what was not moved.
    """

    solver: str
    moves: list[Move]
    slopes: Tensor
    uncertainty: Tensor
    floor: Tensor
    notes: tuple[str, ...] = ()

    @property
    def directions(self) -> int:
        """K."""
        return self.slopes.shape[1]

    @property
    def own_error(self) -> Tensor:
        """The largest uncertainty of each row relative to the norm of its slopes, ``(U,)``."""
        return self._relative(self.uncertainty)

    def error(self, question: Question, gradients: Sequence[Tensor]) -> Tensor:
        """Max over directions d of |⟨gradient, d⟩ − slope| / ‖slopes‖, ``(U,)``."""
        along: list[list[Tensor]] = [[], []]
        for move in self.moves:
            rows = [
                (gradient.double() * part.slope).reshape(part.slope.shape[0], -1).sum(1)
                for gradient, part in zip(gradients, move.parts, strict=True)
                if part is not None
            ]
            along[move.shared].append(torch.stack(rows).sum(0).cpu())
        found = torch.cat([torch.stack(columns, 1) for columns in along if columns])
        return self._relative((found - self.slopes).abs())

    def _relative(self, errors: Tensor) -> Tensor:
        worst = errors.amax(1)
        return torch.where(worst == 0, worst, worst / torch.maximum(self.slopes.norm(dim=1), self.floor))


def finite_differences(source: Source, question: Question, directions: int, seed: int) -> FiniteDifferences:
    """Differentiate the loss without derivatives.

    Args:
        source: the problem. question: where and what.
        directions: k, how many for each instance. seed: of the directions.

    Raises:
        SolverError: a problem nearby has no solution; the message names the instances.
    """
    solver = "CLARABEL" if "CLARABEL" in available_solvers() else None
    layer = CvxpyLayer(
        source.problem,
        source.parameters,
        source.variables,
        gp=source.gp,
        solver=solver,
        on_unconverged="ignore",
    )
    found = list(moves(question, directions, torch.Generator().manual_seed(seed)))
    slopes: list[Tensor] = []
    doubts: list[Tensor] = []
    floors: list[Tensor] = []
    for shared in (False, True):
        group = [_along(layer, question, move) for move in found if move.shared == shared]
        if group:
            columns = [torch.stack(column, 1).cpu() for column in zip(*group, strict=True)]
            slopes.append(columns[0])
            doubts.append(columns[1])
            floors.append(columns[2].amax(1))
    return FiniteDifferences(
        solver or "cvxfold",
        found,
        torch.cat(slopes),
        torch.cat(doubts),
        torch.cat(floors),
        kept_at_the_edge(question),
    )


def _along(solve: Solve, question: Question, move: Move) -> tuple[Tensor, Tensor, Tensor]:
    """The loss's derivatives along a move, their uncertainty, and the floor under their size.

    Each is ``(B,)``, or ``(1,)`` for a shared move.
    """
    sizes = [LARGEST_STEP / SHRINK**level for level in range(LEVELS)]
    outputs = _outputs(solve, question, move, [0.0, *(sign * size for size in sizes for sign in (1.0, -1.0))])
    base, moved = [output[0] for output in outputs], [output[1:] for output in outputs]
    with torch.no_grad():
        losses = torch.stack([
            torch.stack(_losses(question, base, [output[step] for output in moved], move.shared))
            for step in range(2 * LEVELS)
        ])  # fmt: skip
    plain = (losses[0::2] - losses[1::2]) / (2 * losses.new_tensor(sizes).unsqueeze(1))
    influence = question.influence(base if question.batch is not None else [output[0] for output in base])
    if move.shared:
        influence = influence.amax().reshape(1)
    return *_extrapolated(plain), NEGLIGIBLE * influence / move.entries**0.5


def _outputs(solve: Solve, question: Question, move: Move, steps: Sequence[float]) -> list[Tensor]:
    """The outputs at each step of a move, ``(steps, B, *shape)``, all solved at once.

    Raises:
        SolverError: there is no solution; the message names the instances.
    """
    B = question.instances
    points = []
    for value, part in zip(question.tensors, move.parts, strict=True):
        at = [value if part is None else part.at(step) for step in steps]
        points.append(torch.cat([each.expand(B, *value.shape[1:]) for each in at]))
    try:
        with torch.no_grad():
            return [output.reshape(-1, B, *output.shape[1:]) for output in solve(*points)]
    except SolverError as error:
        instances = sorted({row % B for row in error.indices})
        message = f"the problem has no solution at or near the values of instances {instances}"
        raise type(error)(message, instances) from error


def _losses(question: Question, base: list[Tensor], moved: list[Tensor], shared: bool) -> list[Tensor]:
    """The loss with all instances moved, or with each one alone."""
    if question.batch is None:
        return [question.total([output[0] for output in moved])]
    if shared:
        return [question.total(moved)]
    losses = []
    for i in range(question.instances):
        mixed = [output.clone() for output in base]
        for output, other in zip(mixed, moved, strict=True):
            output[i] = other[i]
        losses.append(question.total(mixed))
    return losses


def _extrapolated(plain: Tensor) -> tuple[Tensor, Tensor]:
    """Ridders' table over the central differences by step size ``(L, B)``: the best entries, their errors."""
    best, error = plain[-1], torch.full_like(plain[-1], torch.inf)
    column, factor = plain, 1.0
    while len(column) > 1:
        factor *= SHRINK**2
        following = (factor * column[1:] - column[:-1]) / (factor - 1)
        errors = torch.maximum((following - column[1:]).abs(), (following - column[:-1]).abs())
        for value, doubt in zip(following, errors, strict=True):
            better = doubt < error
            best, error = torch.where(better, value, best), torch.where(better, doubt, error)
        column = following
    return best, error
