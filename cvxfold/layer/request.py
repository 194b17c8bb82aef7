"""What is asked of one call of a layer, beside the data."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cvxfold.engines.protocol import Passage
from cvxfold.layer.options import Options
from cvxfold.layer.samples import Beginning


@dataclass(frozen=True)
class CallRequest:
    """What is asked of one call.

    Args:
        batch: B. options: of this call.
        warm: where it begins and what it leaves; None: at nothing, and nothing.
        invalid: instances whose parameters are not to be solved for, ``(B,)``; None if there are none.
        found: what the engine's shortcut has found of this batch, if it was asked.
        spent: seconds that the call has taken so far.
        wanted: the parameters that gradients are asked for on, as far as is known: kinks and errors are
            judged by what is felt there. None for all.
    """

    batch: int
    options: Options
    warm: Beginning | None = None
    invalid: Tensor | None = None
    found: Passage | None = None
    spent: float = 0.0
    wanted: Sequence[bool] | None = None
