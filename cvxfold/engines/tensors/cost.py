"""The scale c of the cost, c (½ xᵀP x + qᵀx).

Prices of 1e-9 beside amounts of 1 say as much as prices of 1, but y is as small as they are, and whatever
compares y with s is off by that much. So where ‖q‖ and ‖b‖ are far apart, c makes them alike (Stellato et
al., "OSQP: an operator splitting solver for quadratic programs", 2020, section 5.1). The lanes engine does
the same (``kernels/cost.hpp``).
"""

import torch
from torch import Tensor

from cvxfold.batches.near import is_near
from cvxfold.engines.linear.matrix import Matrix
from cvxfold.engines.reduction.scaling import equilibrate

_UNEVEN = 1e3
_MOST_WITH_P = 2.0**27


def root_of_scale(P: Matrix, q: Tensor, b: Tensor) -> Tensor | None:
    """√c by instance, ``(B,)``, a power of two; None where all are 1, or a look at it has to be waited for.

    A program without P is homogeneous in q and in b, each by itself. With a P, that is equilibrated again,
    which undoes what c should not have done, but c < 1 only where variables that P does not know ask for it.

    Args:
        P: equilibrated. q: likewise, ``(B, n)``. b: likewise, ``(B, m)``, without far bounds.
    """
    if not is_near(q) or not q.shape[1] or not b.shape[1]:
        return None
    size, other = q.abs().amax(-1), b.abs().amax(-1)
    if not _apart(size, other).any():  # mostly
        return None
    of_P = P.absolute().mv(torch.ones_like(q))
    quadratic = of_P.amax(-1) > 0
    linear = torch.where(of_P == 0, q, 0).abs().amax(-1)
    size = torch.where(quadratic & (size > other), linear, size)
    root = (other / size).sqrt()
    most = _MOST_WITH_P / P.absolute().values.flatten(1).amax(-1).sqrt()
    root = torch.where(quadratic, root.minimum(most).clamp(min=1 / _MOST_WITH_P), root)
    root = torch.where(_apart(size, other), torch.exp2(root.log2().floor()), 1.0)
    return None if bool((root == 1).all()) else root


def scaled_by(
    root: Tensor, P: Matrix, A: Matrix, blocks: Tensor | None
) -> tuple[Matrix, Matrix, Tensor, Tensor]:
    """c P, equilibrated again with A where there is a P.

    Args:
        root: √c, ``(B,)``. P, A: equilibrated. blocks: as :func:`equilibrate` has them.

    Returns:
        Both matrices, and what D and E are to be multiplied by, ``(B, n)`` and ``(B, m)``.
    """
    root = root.unsqueeze(-1)
    columns, rows = root.expand(-1, P.values.shape[-1]), (1 / root).expand(-1, A.values.shape[-2])
    if not bool(P.values.any()):
        return P, A, columns, rows
    costly = Matrix(P.values * root.square().unsqueeze(-1))
    with torch.no_grad():
        D, E = equilibrate(costly, A, blocks, _MOST_WITH_P)
        D, E = torch.where(root == 1, 1.0, D), torch.where(root == 1, 1.0, E)
    return costly.scale(D, D), A.scale(E, D), columns * D, rows * E


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Where two sizes are neither zero nor alike."""
    return (a > 0) & (b > 0) & ((a > _UNEVEN * b) | (b > _UNEVEN * a))
