"""The iterate x, whatever its structure, as a matrix ``(B, m)`` of a row an instance, and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvxfold.compat.trees import Spec, flattened, names, unflattened


@dataclass(frozen=True)
class IterateLayout:
    """The structure of x: nested tuples, lists or dictionaries of floating-point tensors.

    Args:
        spec: the structure without its leaves.
        names: of the leaves, as one would write them.
        shapes, dtypes: of the leaves.
        device: of all of them.
        batched: whether their first dimension counts instances.
    """

    spec: Spec
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    device: torch.device
    batched: bool

    @classmethod
    def of(cls, x: Any, who: str, batched: bool) -> "IterateLayout":
        """The layout of what ``who`` returned.

        Raises:
            TypeError: a leaf is no floating-point tensor.
            ValueError: there is no leaf, they live on several devices or, where the first dimension counts
                instances, they have none or differ in it.
        """
        leaves, spec = flattened(x)
        where = tuple(f"{who}{name}" for name in names(x))
        if not leaves:
            raise ValueError(f"{who}: expected at least one tensor, got {x!r}")
        for name, leaf in zip(where, leaves, strict=True):
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
                got = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                raise TypeError(f"{name}: expected a floating-point tensor, got {got}")
            if leaf.device != leaves[0].device:
                raise ValueError(f"{name}: expected device {leaves[0].device}, got {leaf.device}")
            if batched and (leaf.dim() == 0 or leaf.shape[0] != leaves[0].shape[0]):
                raise ValueError(
                    f"{name}: expected a first dimension that counts instances, the same in all of x "
                    f"(batched=True), got shape {tuple(leaf.shape)}"
                )
        shapes, dtypes = tuple(leaf.shape for leaf in leaves), tuple(leaf.dtype for leaf in leaves)
        return cls(spec, tuple(name[len(who) :] for name in where), shapes, dtypes, leaves[0].device, batched)

    @property
    def batch(self) -> int:
        """B."""
        return self.shapes[0][0] if self.batched else 1

    @property
    def size(self) -> int:
        """m, the entries of an instance."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Entries of an instance, by leaf."""
        return [shape[self.batched :].numel() for shape in self.shapes]

    @property
    def dtype(self) -> torch.dtype:
        """The least precise of the leaves' types."""
        return max(self.dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    def leaves(self, x: Any, who: str = "update") -> list[Tensor]:
        """The leaves of another x, which must be laid out the same.

        Raises:
            TypeError: its structure or the type of a leaf is another. ValueError: a shape or device is.
        """
        leaves, spec = flattened(x)
        if spec != self.spec:
            expected = unflattened(["·"] * len(self.shapes), self.spec)
            got = unflattened(["·"] * len(leaves), spec)
            raise TypeError(f"{who}: expected a result of the structure of x, {expected}, got {got}")
        for leaf, name, shape, dtype in zip(leaves, self.names, self.shapes, self.dtypes, strict=True):
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{who}{name}: expected a tensor, got {type(leaf).__name__}")
            if leaf.shape != shape:
                raise ValueError(
                    f"{who}{name}: expected the shape of x, {tuple(shape)}, got {tuple(leaf.shape)}"
                )
            if leaf.dtype != dtype:
                raise TypeError(f"{who}{name}: expected the dtype of x, {dtype}, got {leaf.dtype}")
            if leaf.device != self.device:
                raise ValueError(f"{who}{name}: expected the device of x, {self.device}, got {leaf.device}")
        return leaves

    def packed(self, leaves: Sequence[Tensor]) -> Tensor:
        """Leaves side by side, in double precision, ``(B, m)``."""
        sizes = self._sizes
        rows = [leaf.reshape(self.batch, size).double() for leaf, size in zip(leaves, sizes, strict=True)]
        return torch.cat(rows, dim=1)

    def unpacked(self, rows: Tensor) -> list[Tensor]:
        """Leaves of what stands side by side in ``(B, m)``."""
        parts = rows.split(self._sizes, dim=1)
        return [
            part.reshape(shape).to(dtype)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        ]

    def image(self, update: Callable[..., Any], u: Tensor, params: Sequence[Any]) -> Tensor:
        """F(u), ``(B, m)``, of an update and its parameters."""
        return self.packed(self.leaves(update(self.tree(self.unpacked(u)), *params)))

    def tree(self, leaves: Sequence[Tensor]) -> Any:
        """x with these leaves."""
        return unflattened(list(leaves), self.spec)
