"""What is asked of one call of a layer, beside the data."""

from dataclasses import dataclass

from torch import Tensor

from cvxfold.engines.protocol import Passage
from cvxfold.layer.options import Options


@dataclass(frozen=True)
class CallRequest:
    """What is asked of one call.

    Args:
        batch: B. options: of this call.
        warm_start: whether to start from the last solutions.
        invalid: instances whose parameters are not to be solved for, ``(B,)``; None if there are none.
        found: what the engine's shortcut has found of this batch, if it was asked.
    """

    batch: int
    options: Options
    warm_start: bool = False
    invalid: Tensor | None = None
    found: Passage | None = None
