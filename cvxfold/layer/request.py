"""What is asked of one call of a layer, beside the data."""

from dataclasses import dataclass

from torch import Tensor

from cvxfold.layer.options import Options


@dataclass(frozen=True)
class CallRequest:
    """What is asked of one call.

    Args:
        batch: B. options: of this call.
        warm_start: whether to start from the last solutions.
        invalid: instances whose parameters are not to be solved for, ``(B,)``; None if there are none.
    """

    batch: int
    options: Options
    warm_start: bool = False
    invalid: Tensor | None = None
