"""The parameters of an update: nested structures of anything, of which tensors are looked at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvxfold.compat.functorch import is_wrapped
from cvxfold.compat.trees import flattened, names, on_tensors, unflattened
from cvxfold.fold.layout import IterateLayout


def check_params(params: Sequence[Any]) -> None:
    """Check that what is floating-point is finite, and no transformation is at work on it.

    Raises:
        ValueError: NaN or infinity; the message names the tensor.
        NotImplementedError: under ``torch.func``.
    """
    for name, leaf in zip(names(params), flattened(params)[0], strict=True):
        if not isinstance(leaf, Tensor):
            continue
        if is_wrapped(leaf):
            raise NotImplementedError(
                "cvxfold: a folded iteration is not available under torch.func's transformations; use its "
                "batched=True in place of vmap, and torch.autograd in place of grad and jacrev"
            )
        if leaf.is_floating_point() and not bool(leaf.isfinite().all()):
            raise ValueError(f"params{name}: expected finite values, got NaN or infinity")


def check_precision(layout: IterateLayout, params: Sequence[Any], error: Exception) -> None:
    """Say what an update most likely failed of, where the start has another dtype than the parameters.

    Raises:
        TypeError: it has; from ``error``.
    """
    theirs = {
        leaf.dtype for leaf in flattened(params)[0] if isinstance(leaf, Tensor) and leaf.is_floating_point()
    }
    other = [
        (name, dtype) for name, dtype in zip(layout.names, layout.dtypes, strict=True) if dtype not in theirs
    ]
    if theirs and other:
        (name, dtype), *_ = other
        expected = " or ".join(sorted(map(str, theirs)))
        raise TypeError(
            f"start{name}: expected the parameters' dtype, {expected}, got {dtype}, "
            f"with which the update ended in {type(error).__name__}: {error}"
        ) from error


def wanting(params: Sequence[Any]) -> list[tuple[str, Tensor]]:
    """The tensors that require a gradient, and where they are."""
    leaves = zip(names(params), flattened(params)[0], strict=True)
    return [(name, leaf) for name, leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]


def detached(params: Sequence[Any]) -> tuple[Any, ...]:
    """The same parameters off the tape."""
    return on_tensors(Tensor.detach, tuple(params))


def as_tensors(x: Any, params: Sequence[Any]) -> Any:
    """What a solver returned, arrays and numbers as tensors of the parameters' type and device."""
    floats = [leaf for leaf in flattened(params)[0] if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    dtype = floats[0].dtype if floats else torch.get_default_dtype()
    device = floats[0].device if floats else None

    def tensor(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.detach()
        if isinstance(leaf, np.ndarray | np.generic | float | int) and not isinstance(leaf, bool):
            return torch.tensor(np.asarray(leaf, dtype=float), dtype=dtype, device=device)
        return leaf

    leaves, spec = flattened(x)
    return unflattened([tensor(leaf) for leaf in leaves], spec)
