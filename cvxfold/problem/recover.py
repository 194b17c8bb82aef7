"""Solution vectors → the variables that the user asked for."""

import torch
from torch import Tensor

from cvxfold.problem.structure import OutputSpec


class Recovery:
    """Picks one variable out of x or y and gives it its shape.

    Args:
        spec: where it stands.
        device: of the solution vectors.
    """

    def __init__(self, spec: OutputSpec, device: torch.device) -> None:
        self._spec = spec
        self._index = torch.as_tensor(spec.index.ravel(), device=device)
        self._factors = torch.as_tensor(spec.factors.ravel(), device=device)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The variable, ``(B, *shape)``, from x ``(B, n)`` and y ``(B, m)``."""
        terms = (x if self._spec.source == "primal" else y).index_select(1, self._index) * self._factors
        return finished(terms.reshape(len(terms), *self._spec.raw_shape), self._spec)


def finished(terms: Tensor, spec: OutputSpec) -> Tensor:
    """The variable from its terms ``(*batch, *raw_shape)``."""
    if spec.index.shape[0] > 1:
        terms = terms.sum(terms.dim() - len(spec.raw_shape))
    if spec.is_complex:
        terms = torch.complex(terms[..., 0], terms[..., 1])
    return terms.exp() if spec.exp else terms
