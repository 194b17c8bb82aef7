"""Records with an entry for each instance: taken apart, put together."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from cvxfold.batches.pieces import in_pieces
from cvxfold.batches.records import Batched, ByIteration, Piece, SharedTensor, joined, overwritten


@dataclass(frozen=True)
class Inner(Batched):
    codes: Tensor


@dataclass(frozen=True)
class Record(Batched):
    values: Tensor
    factor: SharedTensor
    history: ByIteration
    inner: Inner
    parts: tuple[tuple[str, Inner], ...]
    name: str = "a name"
    missing: Tensor | None = None


def record(batch: int, shared: bool = True) -> Record:
    """Entry i of everything is about i."""
    numbers = torch.arange(batch)
    return Record(
        10 * numbers.unsqueeze(-1),
        torch.ones(1, 3) if shared else 100 + numbers.unsqueeze(-1),
        1000 * numbers.expand(4, batch),
        Inner(numbers),
        (("first", Inner(-numbers)),),
    )


@pytest.mark.parametrize("rows", [[2, 0], [1], [], [3, 3, 1]])
def test_instances_are_taken_of_everything_that_has_them(rows: list[int]) -> None:
    whole, index = record(4, shared=False), torch.tensor(rows, dtype=torch.long)
    part = whole.take(index)
    assert part.values.flatten().tolist() == [10 * i for i in rows]
    assert part.factor.flatten().tolist() == [100 + i for i in rows]
    assert part.history.tolist() == [[1000 * i for i in rows]] * 4
    assert part.inner.codes.tolist() == rows
    assert part.parts[0][0] == "first"
    assert part.parts[0][1].codes.tolist() == [-i for i in rows]
    assert (part.name, part.missing) == ("a name", None)


@pytest.mark.parametrize("batch", [1, 4])
def test_what_is_shared_stays_and_nothing_else(batch: int) -> None:
    """Also in a batch of one, of which nobody may be left."""
    whole = record(batch)
    part = whole.take(torch.tensor([], dtype=torch.long))
    assert part.factor is whole.factor
    assert part.values.shape == (0, 1)
    assert part.history.shape == (4, 0)


@dataclass(frozen=True)
class Found:
    values: Tensor
    history: ByIteration
    inner: Inner
    name: str = field(default="piece")


def found(rows: list[int]) -> Piece[Found]:
    numbers = torch.tensor(rows, dtype=torch.double)
    return Piece(torch.tensor(rows), Found(numbers, numbers.expand(2, -1), Inner(torch.tensor(rows))))


def test_pieces_are_joined_and_the_rest_is_blank() -> None:
    nan, none = torch.full((5,), torch.nan, dtype=torch.double), torch.full((5,), -1)
    blank = Found(nan, nan.expand(2, 5), Inner(none), "whole")
    whole = joined([found([3, 1]), found([4])], blank, 5)
    assert whole.values.nan_to_num(-7).tolist() == [-7, 1, -7, 3, 4]
    assert whole.history[1].nan_to_num(-7).tolist() == [-7, 1, -7, 3, 4]
    assert whole.inner.codes.tolist() == [-1, 1, -1, 3, 4]
    assert whole.name == "whole"
    assert blank.values.isnan().all()
    alone = found([0, 1])
    assert joined([alone], blank, 2) is alone.value


def test_some_instances_are_overwritten() -> None:
    whole = overwritten(Inner(torch.zeros(4)), torch.tensor([2, 0]), Inner(torch.tensor([5.0, 6.0])))
    assert whole.codes.tolist() == [6, 0, 5, 0]


def test_work_is_done_in_halves_where_memory_is_short() -> None:
    asked: list[list[int]] = []
    released = []

    def work(rows: Tensor) -> Any:
        asked.append(rows.tolist())
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rows.tolist()

    pieces = in_pieces(torch.arange(7), work, lambda: (1, 1, 8), lambda: released.append(1))
    assert [piece.value for piece in pieces] == [[0], [1, 2], [3, 4], [5, 6]]
    assert asked[0] == list(range(7))
    assert len(released) == len(asked) - len(pieces)


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    def work(rows: Tensor) -> Any:
        raise RuntimeError(f"{len(rows)}")

    with pytest.raises(RuntimeError, match="7"):
        in_pieces(torch.arange(7), work, lambda: (1, 1, 8))
