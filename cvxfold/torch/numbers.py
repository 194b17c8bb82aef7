"""The numbers by which graphs know layers."""

import weakref
from itertools import count

from cvxfold.layer.base import BaseLayer

_numbers = count()
_layers: weakref.WeakValueDictionary[int, BaseLayer] = weakref.WeakValueDictionary()


def numbered(layer: BaseLayer) -> int:
    """A number for a layer in graphs of this process."""
    number = next(_numbers)
    _layers[number] = layer
    return number


def layer_of(number: int) -> BaseLayer:
    """The layer of a number.

    Raises:
        RuntimeError: there is none in this process.
    """
    layer = _layers.get(number)
    if layer is None:
        raise RuntimeError(
            f"cvxfold: no layer has the number {number} in this process; a graph holds its layers by number, "
            "so compile or export the model in the process that runs it"
        )
    return layer
