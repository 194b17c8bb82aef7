"""How finite differences move the parameters: on random curves that stay where these are declared to be."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cvxfold.problem.structure import ParameterSpec
from cvxfold.studies.comparison.question import Question

_SIGNED = ("nonneg", "pos", "nonpos", "neg")
_SEMIDEFINITE = ("PSD", "NSD")
_SINGULAR = 1e-9  # an eigenvalue below this share of the largest one


@dataclass(frozen=True)
class Curve:
    """V + t D + t² E, for one parameter.

    Args:
        start: V, ``(1|B, *shape)``. slope: D, of the same shape. bend: E, likewise; None for a straight line.
    """

    start: Tensor
    slope: Tensor
    bend: Tensor | None = None

    def at(self, t: float) -> Tensor:
        """The point at t, ``(1|B, *shape)``."""
        point = self.start + t * self.slope
        return point if self.bend is None else point + t**2 * self.bend


@dataclass(frozen=True)
class Move:
    """Where the parameters go together.

    Args:
        parts: by parameter; None where it stays.
        shared: whether the shared parameters move, all instances with them; else each instance moves alone.
        entries: of an instance's parameters that move.
    """

    parts: list[Curve | None]
    shared: bool
    entries: int


def moves(question: Question, count: int, generator: torch.Generator) -> Iterator[Move]:
    """Moves of length 1 in what moves, each entry relative to its parameter's size.

    Args:
        question: where. count: k; of the instances' own parameters, and again of the shared ones, if any.
        generator: of what is random.
    """
    numbers = range(len(question.specs))
    for shared in (False, True):
        moving = [number for number in numbers if question.shared(number) == shared]
        entries = sum(question.tensors[number][0].numel() for number in moving)
        for _ in range(count if moving else 0):
            parts: list[Curve | None] = [None] * len(numbers)
            for number in moving:
                value = question.tensors[number]
                noise = torch.randn(value.shape, dtype=torch.float64, generator=generator).to(value.device)
                parts[number] = curve(question.specs[number], value, noise / entries**0.5)
            yield Move(parts, shared, entries)


def curve(spec: ParameterSpec, value: Tensor, noise: Tensor) -> Curve:
    """A curve from a value along which the parameter stays where it is declared to be.

    Args:
        spec: the parameter. value: V, ``(1|B, *shape)``. noise: what makes it random, of the same shape.
    """
    if spec.log or spec.domain in _SIGNED:
        return Curve(value, noise * value)
    if spec.domain in _SEMIDEFINITE:  # (I + tZ) V (I + tZ)ᵀ: the tangent alone leaves the cone where V is
        Z = noise / value.shape[-1] ** 0.5  # singular, and t² cancels in central differences
        return Curve(value, Z @ value + value @ Z.mT, Z @ value @ Z.mT)
    size = value.reshape(len(value), -1).square().mean(1).sqrt()
    size = torch.where(size > 0, size, 1.0).view(-1, *(1,) * (value.ndim - 1))
    if spec.domain == "symmetric":
        noise = (noise + noise.mT) / 2**0.5
    if spec.domain == "diag":
        noise = torch.diag_embed(noise.diagonal(0, -2, -1))
    return Curve(value, noise * size)


def kept_at_the_edge(question: Question) -> tuple[str, ...]:
    """A sentence for each parameter that such curves do not move in every direction."""
    found = []
    for spec, name, value in zip(question.specs, question.names, question.tensors, strict=True):
        if spec.domain in _SIGNED and bool((value == 0).any()):
            found.append(
                f"Finite differences: entries of {name} at 0, the edge of what it is declared to be, were "
                "not moved."
            )
        if spec.domain in _SEMIDEFINITE:
            eigenvalues = torch.linalg.eigvalsh(value).abs()
            if bool((eigenvalues.amin(-1) <= _SINGULAR * eigenvalues.amax(-1)).any()):
                found.append(
                    f"Finite differences: {name} is singular, at the edge of what it is declared to be, and "
                    "was moved along that edge only."
                )
    return tuple(found)
