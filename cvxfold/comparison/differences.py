"""The arbiter: central finite differences of the loss, which need solutions only and no adjoint.

The solutions are Clarabel's where it is installed, which shares nothing with cvxfold's iteration; Newton
steps on the optimality conditions then bring them to machine precision, without which the differences would
show little. Each derivative is extrapolated from four step sizes; the table tells how good it is. Ridders,
"Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.comparison.question import Question
from cvxfold.forward.black_box import available
from cvxfold.structure import ParameterSpec
from cvxfold.torch import CvxpyLayer, Source

LARGEST_STEP, SHRINK, LEVELS = 1e-2, 4.0, 4  # of steps along a direction of length 1 relative to the values

Solve = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Move:
    """A direction in the space of the parameters.

    Args:
        parts: by parameter, ``(1|B, *shape)``, or None where the parameter stays.
        shared: whether the shared parameters move, all instances with them; else each instance moves alone.
    """

    parts: list[Tensor | None]
    shared: bool


@dataclass(frozen=True)
class FiniteDifferences:
    """Derivatives of the loss along random directions, for each instance, and last for shared parameters.

    Args:
        solver: of the forward passes.
        moves: k for the instances, then k for the shared parameters, if there are any.
        slopes: ``(U, k)`` with U = B, or B + 1 where parameters are shared.
        uncertainty: how far off these may be, ``(U, k)``.
    """

    solver: str
    moves: list[Move]
    slopes: Tensor
    uncertainty: Tensor

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
                (gradient.double() * part).reshape(part.shape[0], -1).sum(1)
                for gradient, part in zip(gradients, move.parts, strict=True)
                if part is not None
            ]
            along[move.shared].append(torch.stack(rows).sum(0).cpu())
        found = torch.cat([torch.stack(columns, 1) for columns in along if columns])
        return self._relative((found - self.slopes).abs())

    def _relative(self, errors: Tensor) -> Tensor:
        worst = errors.amax(1)
        return torch.where(worst == 0, worst, worst / self.slopes.norm(dim=1))


def finite_differences(source: Source, question: Question, directions: int, seed: int) -> FiniteDifferences:
    """Differentiate the loss without derivatives.

    Args:
        source: the problem. question: where and what.
        directions: k, how many for each instance. seed: of the directions.

    Raises:
        SolverError: a problem nearby has no solution.
    """
    solver = "CLARABEL" if "CLARABEL" in available() else None
    layer = CvxpyLayer(
        source.problem,
        source.parameters,
        source.variables,
        gp=source.gp,
        solver=solver,
        on_unconverged="ignore",
    )
    generator = torch.Generator().manual_seed(seed)
    moves = list(_moves(question, directions, generator))
    groups = [[move for move in moves if move.shared == shared] for shared in (False, True)]
    tables = [[_slopes(layer, question, move) for move in group] for group in groups if group]
    slopes = torch.cat([torch.stack([slope for slope, _ in table], 1) for table in tables]).cpu()
    doubts = torch.cat([torch.stack([doubt for _, doubt in table], 1) for table in tables]).cpu()
    return FiniteDifferences(solver or "cvxfold", moves, slopes, doubts)


def _moves(question: Question, count: int, generator: torch.Generator) -> Iterator[Move]:
    """Directions of length 1 in what moves, each entry relative to its parameter's size."""
    alone = [number for number in range(len(question.specs)) if not question.shared(number)]
    for numbers, shared in ((alone, False), (sorted({*range(len(question.specs))} - {*alone}), True)):
        for _ in range(count if numbers else 0):
            parts: list[Tensor | None] = [None] * len(question.specs)
            for number in numbers:
                value = question.tensors[number]
                noise = torch.randn(value.shape, dtype=torch.float64, generator=generator).to(value.device)
                parts[number] = _direction(question.specs[number], value, noise)
            entries = sum(question.tensors[number][0].numel() for number in numbers)
            yield Move([None if part is None else part / entries**0.5 for part in parts], shared)


def _direction(spec: ParameterSpec, value: Tensor, noise: Tensor) -> Tensor:
    """A random direction along which the parameter stays where it is declared to be, ``(1|B, *shape)``."""
    if spec.log or spec.domain in ("nonneg", "pos", "nonpos", "neg"):
        return noise * value
    if spec.domain in ("PSD", "NSD"):  # the derivative of (I + tZ) V (I + tZ)ᵀ
        return (noise @ value + value @ noise.mT) / value.shape[-1] ** 0.5
    size = value.reshape(len(value), -1).square().mean(1).sqrt()
    size = torch.where(size > 0, size, 1.0).view(-1, *(1,) * (value.ndim - 1))
    if spec.domain == "symmetric":
        noise = (noise + noise.mT) / 2**0.5
    return noise * size


def _slopes(solve: Solve, question: Question, move: Move) -> tuple[Tensor, Tensor]:
    """The loss's derivatives along a move and their uncertainty, ``(B,)``, or ``(1,)`` for a shared one."""
    sizes = [LARGEST_STEP / SHRINK**level for level in range(LEVELS)]
    steps = [sign * size for size in sizes for sign in (1.0, -1.0)]
    B = question.instances
    points = []
    for value, part in zip(question.tensors, move.parts, strict=True):
        full = value.expand(B, *value.shape[1:])
        points.append(torch.cat([full, *(full if part is None else full + step * part for step in steps)]))
    with torch.no_grad():
        outputs = [output.reshape(-1, B, *output.shape[1:]) for output in solve(*points)]
        base, moved = [output[0] for output in outputs], [output[1:] for output in outputs]
        losses = torch.stack([
            torch.stack(_losses(question, base, [output[step] for output in moved], move.shared))
            for step in range(len(steps))
        ])  # fmt: skip
    plain = (losses[0::2] - losses[1::2]) / (2 * losses.new_tensor(sizes).unsqueeze(1))
    return _extrapolated(plain)


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
