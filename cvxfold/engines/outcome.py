"""How an instance of a forward pass ended, and points that one may begin at."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvxfold.batches.records import Batched


class Status(StrEnum):
    """How the forward pass ended for one instance; equal to its name."""

    SOLVED = "solved"
    UNCONVERGED = "unconverged"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    INVALID = "invalid"
    """Its parameters hold NaN, infinity or values outside of the declared set; it was not solved."""


CODES = tuple(Status)
"""A status tensor holds indices into this tuple."""

SOLVED, UNCONVERGED, INFEASIBLE, UNBOUNDED, INVALID = range(len(CODES))


def is_absent(codes: Tensor) -> Tensor:
    """Which statuses, ``(B,)``, say that there is no solution."""
    return (codes == INFEASIBLE) | (codes == UNBOUNDED) | (codes == INVALID)


@dataclass(frozen=True)
class Start(Batched):
    """A point to start from.

    Args:
        s, y: in original units, ``(B, m)``, NaN for instances without a point.
        x: in original units, ``(B, n)``; None where it is not known.
        status: how another solver ended there, as indices into ``CODES``, ``(B,)``; then its iterations
            ``(B,)`` stand in the record. None where nobody claims that it is a solution.
    """

    s: Tensor
    y: Tensor
    x: Tensor | None = None
    status: Tensor | None = None
    iterations: Tensor | None = None


@dataclass
class KeptPoints:
    """Points to start from where they are kept. A pass may put those where it ends in their place.

    Args:
        points: all that are kept, a row each, x, y and s side by side, with what else an engine keeps.
        places: the instances' rows, no two the same, ``(B,)``.

    Attributes:
        renewed: whether a pass has put its ends there, those of instances that it has solved.
    """

    points: Tensor
    places: NDArray[np.int64]
    renewed: bool = False

    def copied(self) -> Tensor:
        """The instances' rows, ``(B, ·)``."""
        return torch.from_numpy(self.points.numpy()[self.places])  # faster than PyTorch's


@dataclass(frozen=True)
class Residuals(Batched):
    """What is left of the optimality conditions, in SCS's definitions and in original units, each ``(B,)``.

    With infinity norms: primal ‖Ax + s − b‖, dual ‖Px + q + Aᵀy‖, gap |xᵀPx + qᵀx + bᵀy|.

    Args:
        relative: the number that was held against the tolerance: the largest of the three, and of their rows,
            each relative to the sizes of its terms.
    """

    primal: Tensor
    dual: Tensor
    gap: Tensor
    relative: Tensor


@dataclass(frozen=True)
class Ended(Batched):
    """What is known of a forward pass beside its points, each ``(B,)``.

    Args:
        status: indices into :data:`CODES`.
        iterations: applications of F. newton_steps: of any kind.
        residuals: of the points.
        certificate: residual of the proof that there is no solution; NaN where there is none.
        rescued: instances that another solver took over.
    """

    status: Tensor
    iterations: Tensor
    newton_steps: Tensor
    residuals: Residuals
    certificate: Tensor
    rescued: Tensor


def instances_that(codes: Tensor, status: Status | str) -> list[int]:
    """Indices of the instances that ended so, of ``codes`` ``(B,)``.

    Raises:
        ValueError: there is no such status.
    """
    if status not in CODES:
        raise ValueError(f"status: expected one of {', '.join(map(repr, map(str, CODES)))}, got {status!r}")
    return (codes == CODES.index(Status(status))).nonzero().squeeze(-1).tolist()
