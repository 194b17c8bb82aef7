"""Bounds on a single variable that are far beyond what all other data speak of, brought near.

A bound of 1e8 beside data of 1 says no more than "no bound", but its size is what everything would be
measured against. Where it is inactive its b does not matter: x and y solve the program with another b there
as well, and s is larger by the difference. The lanes engine does the same (``kernels/far_bounds.hpp``).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.batches.records import Batched
from cvxfold.cones import ConeDims
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.outcome import Start
from cvxfold.engines.reduction.scaling import Scaling, data_size
from cvxfold.engines.tensors.program import ConeProgram
from cvxfold.problem.index import Index, at
from cvxfold.problem.structure import IndexArray

FAR_BEYOND = 1e3
"""A limit over what it is far beyond."""


@dataclass(frozen=True)
class BroughtNear(Batched):
    """A program whose far bounds were lowered.

    In equilibrated units, to 1e3 max(‖b‖∞ of other rows and of negative bounds, ‖q‖∞ where there is a P), or
    of the smallest positive bound where these are zero. A solution where one of them is active is none of the
    program as it is given.

    Args:
        program: equilibrated, by ``scaling``. beyond: what b lost, ``(B, m)``, in original units.
    """

    program: ConeProgram
    scaling: Scaling
    beyond: Tensor

    def active(self, s: Tensor) -> Tensor:
        """Which bounds that were lowered have no slack left, ``(B, m)``; s ``(B, m)`` in any units."""
        return (self.beyond > 0) & ~(s > 0)

    def start(self, start: Start) -> Start:
        """A point of the program as it is given, for this one."""
        return replace(start, s=torch.where(start.s > self.beyond, start.s - self.beyond, start.s))


def bounds_among(places: IndexArray, dims: ConeDims) -> Index:
    """Which rows are half-lines of one variable.

    Args:
        places: rows and columns of A's stored entries, ``(2, nnz)``. dims: of the cone.
    """
    entries = np.bincount(places[0], minlength=dims.rows)
    separable = dims.zero + dims.nonnegative
    return Index(dims.zero + np.flatnonzero(entries[dims.zero : separable] == 1))


def limit_of_bounds(P: Matrix, q: Tensor, b: Tensor, bounds: Index) -> Tensor:
    """What no entry of b should be above, by instance, ``(B|1, 1)``; infinite where nothing is far.

    Args:
        P: equilibrated. q, b: likewise, ``(B, n)`` and ``(B, m)``. bounds: as :func:`bounds_among` has them.
    """
    none = b.new_full((1, 1), math.inf)
    if not len(bounds) or not is_near(b):
        return none
    rows = bounds.on(b.device)
    far = torch.zeros_like(b).index_copy(1, rows, at(b, rows).clamp(min=0))
    near = (b.abs() - far).amax(-1)
    if not (far.amax(-1) > FAR_BEYOND * near).any():  # mostly
        return none
    linear = P.absolute().mv(torch.ones_like(q)).sum(-1) == 0
    near = near.maximum(torch.where(linear, 0, q.abs().amax(-1)))
    near = torch.where(near > 0, near, far.masked_fill(far == 0, math.inf).amin(-1))
    limit = FAR_BEYOND * near
    return torch.where(far.amax(-1) > limit, limit, math.inf).unsqueeze(-1)


def bring_near(
    program: ConeProgram, scaling: Scaling, bounds: Index, but_for: Tensor | None = None
) -> BroughtNear | None:
    """Lower what is far; None where nothing is, or where a look at it has to be waited for.

    Args:
        program: equilibrated, by ``scaling``. bounds: as :func:`bounds_among` has them.
        but_for: instances that are left as they are, ``(B,)``; None for none.
    """
    if not len(bounds) or not is_near(program.b):
        return None
    q, b = program.q, program.b
    limit = limit_of_bounds(program.P, q, b, bounds)
    if but_for is not None:
        limit = torch.where(but_for.unsqueeze(-1), math.inf, limit)
    beyond = (b - limit).clamp(min=0)
    if not beyond.any():  # mostly
        return None
    b = b.minimum(limit)
    size = data_size(q, b)
    lowered = replace(program, q=q / size.unsqueeze(-1), b=b / size.unsqueeze(-1))
    unit = scaling.size.unsqueeze(-1) / scaling.rows
    return BroughtNear(lowered, replace(scaling, size=scaling.size * size), beyond * unit)
