"""What a call by the shortcut needs of its layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from cvxfold.layer.session import Session
from cvxfold.problem.structure import OutputSpec
from cvxfold.problem.values import ProgramValues


class Parametrize(Protocol):
    """The stored entries of some parameters' programs."""

    def __call__(self, parameters: Sequence[Tensor]) -> ProgramValues:
        """From tensors ``(1|B, *shape)``, float64; logarithms where the problem has those."""
        ...


@dataclass(frozen=True)
class LayerParts:
    """What a call needs of its layer.

    Args:
        session: that lasts. outputs: what the layer returns.
        parametrize: the general way from parameters to stored entries.
    """

    session: Session
    outputs: Sequence[OutputSpec]
    parametrize: Parametrize

    @cached_property
    def hands_out_terms(self) -> bool:
        """Whether the variables are their terms."""
        return all(spec.is_its_terms for spec in self.outputs)
