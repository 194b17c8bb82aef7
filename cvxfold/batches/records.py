"""Records with an entry for each instance of a batch: picking instances, putting batches together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Generic, Self, TypeVar

from torch import Tensor

from cvxfold.batches.near import fetched, is_near

T = TypeVar("T")

_SHARED, _ALONG_SECOND = "shared", "along the second dimension"

SharedTensor = Annotated[Tensor, _SHARED]
"""A tensor ``(1|B, …)``: one entry for all instances, or one for each."""

ByIteration = Annotated[Tensor, _ALONG_SECOND]
"""A tensor ``(K, B)``: instances count along its second dimension."""


class Batched:
    """A dataclass with an entry for each instance: tensors ``(B, …)``, other such records, and constants."""

    def take(self, index: Tensor) -> Self:
        """Keep the instances at positions ``index`` ``(b,)``; what is shared stays as it is."""
        changed = {}
        for one in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, one.name)
            taken = _taken(value, index, getattr(one.type, "__metadata__", ()))
            if taken is not value:
                changed[one.name] = taken
        return replace(self, **changed) if changed else self  # pyright: ignore[reportArgumentType, reportReturnType]


def _taken(value: Any, index: Tensor, how: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, Tensor):
        if _SHARED in how and value.shape[0] == 1:
            return value
        return value.index_select(_dimension(how), index)
    if isinstance(value, tuple):
        return tuple(_taken(part, index) for part in value)
    return value.take(index) if hasattr(value, "take") else value


def _dimension(how: tuple[Any, ...]) -> int:
    """That along which a tensor counts instances."""
    return 1 if _ALONG_SECOND in how else 0


def overwritten(whole: T, rows: Tensor, part: T) -> T:
    """A dataclass of tensors ``(B, …)``, with those of ``part`` ``(b, …)`` for the instances ``rows``."""
    changed = {}
    for one in fields(whole):  # pyright: ignore[reportArgumentType]
        changed[one.name] = getattr(whole, one.name).index_copy(0, rows, getattr(part, one.name))
    return replace(whole, **changed)  # pyright: ignore[reportArgumentType, reportReturnType, reportCallIssue]


def on_host(record: T) -> T:
    """A dataclass with all its tensors on the CPU, after one wait; itself where they are there already.

    Dataclasses in it are gone through as well.
    """
    tensors = list(_tensors(record))
    if not tensors or all(is_near(one) for one in tensors):
        return record
    return _exchanged(record, dict(zip(map(id, tensors), fetched(*tensors), strict=True)))


def _tensors(record: Any) -> Iterator[Tensor]:
    for one in fields(record):
        value = getattr(record, one.name)
        if isinstance(value, Tensor):
            yield value
        elif is_dataclass(value):
            yield from _tensors(value)


def _exchanged(record: Any, others: Mapping[int, Tensor]) -> Any:
    """A dataclass with others in the place of its tensors, by their identities."""
    changed = {}
    for one in fields(record):
        value = getattr(record, one.name)
        if isinstance(value, Tensor):
            changed[one.name] = others[id(value)]
        elif is_dataclass(value):
            changed[one.name] = _exchanged(value, others)
    return replace(record, **changed)


@dataclass(frozen=True)
class Piece(Generic[T]):
    """What was found for the instances ``rows`` ``(b,)`` of a batch."""

    rows: Tensor
    value: T

    def is_all_of(self, batch: int) -> bool:
        """Whether a batch of that size is this piece."""
        return len(self.rows) == batch


def joined(pieces: Sequence[Piece[T]], blank: T, batch: int) -> T:
    """What was found for a batch: a dataclass whose tensors, of B instances, have those of the pieces.

    Args:
        pieces: dataclasses of the same kind, of b instances.
        blank: what stands for the instances of none of them; also for what is no tensor.
        batch: B.
    """
    if len(pieces) == 1 and pieces[0].is_all_of(batch):
        return pieces[0].value
    changed: dict[str, Any] = {}
    for one in fields(blank):  # pyright: ignore[reportArgumentType]
        whole = getattr(blank, one.name)
        parts = [Piece(piece.rows, getattr(piece.value, one.name)) for piece in pieces]
        if isinstance(whole, Tensor):
            dimension = _dimension(getattr(one.type, "__metadata__", ()))
            changed[one.name] = whole.clone()
            for part in parts:
                changed[one.name].index_copy_(dimension, part.rows, part.value)
        elif is_dataclass(whole):
            changed[one.name] = joined(parts, whole, batch)
    return replace(blank, **changed)  # pyright: ignore[reportArgumentType, reportReturnType, reportCallIssue]
