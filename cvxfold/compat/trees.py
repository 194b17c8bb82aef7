"""Nested structures of tensors, as PyTorch takes them apart itself."""

from collections.abc import Callable
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor

Spec = pytree.TreeSpec
"""What a structure is without its leaves."""


def flattened(tree: Any) -> tuple[list[Any], Spec]:
    """The leaves of nested tuples, lists and dictionaries, in order, and what is left without them."""
    return pytree.tree_flatten(tree)


def unflattened(leaves: list[Any], spec: Spec) -> Any:
    """The structure with these leaves."""
    return pytree.tree_unflatten(leaves, spec)


def names(tree: Any) -> list[str]:
    """Where each leaf is, as one would write it after the structure's name: ``[0]['A']``."""
    return [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(tree)[0]]


def on_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """The structure with a function of each tensor in the tensor's place; other leaves stay."""
    return pytree.tree_map(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)
