"""What warm starts begin from: the last solutions of a layer, by sample and by batch."""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvxfold.compat.functorch import is_wrapped
from cvxfold.engines.outcome import KeptPoints

Samples = Tensor | Sequence[int] | NDArray[np.integer[Any]] | int
"""Ids of training samples, one for each instance of a batch."""

_FIRST_ROOM = 64  # points that a store makes room for at first


class PointsBySample:
    """The last point of each sample, under its id: x, y and s, and what follows in an engine's beginnings.

    It takes 8 bytes a number and 16 of the id, for each sample that it has seen, in main memory: with the
    lanes engine 8 (2n + 3m) + 24, with the tensor engine, and where batches share P and A, 8 (n + 2m) + 16,
    n and m those of the cone program. While it grows, up to three times as much.
    """

    def __init__(self) -> None:
        self._set_points(np.empty((0, 0)))
        self._ids = np.empty(0, dtype=np.int64)  # those known, ascending
        self._rows = np.empty(0, dtype=np.int64)  # of their points
        self._ids_are_places = False  # whether those known are all from 0 on
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many samples are known."""
        return len(self._ids)

    def find(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float64] | None, NDArray[np.int64] | None]:
        """The points of samples ``(B,)``, NaN for those unknown, None where nobody is known.

        Also their places, if all are known; these never change.

        Raises:
            ValueError: an id is negative.
        """
        with self._lock:
            rows, known = self._places(ids)
            if known.all():
                return self._points[rows], rows
            found = self._points[rows] if known.any() else None
        if ids.min() < 0:
            place = int((ids < 0).argmax())
            raise ValueError(f"samples: expected nonnegative ids, got {ids[place]} for instance {place}")
        if found is not None:
            found[~known] = np.nan
        return found, None

    def where(self, ids: NDArray[np.int64]) -> KeptPoints | None:
        """The points of samples ``(B,)`` where they are kept, if all are known and no two the same.

        A pass that renews them there does so while other threads may read or move them: a point that it mixes
        of two, or one that is lost, is no more than a bad or an old beginning.
        """
        with self._lock:
            numbers = ids.tolist()
            if len(numbers) > 1 and len(set(numbers)) < len(numbers):
                return None
            if self._ids_are_places and min(numbers) >= 0 and max(numbers) < len(self._rows):
                return KeptPoints(self._as_tensor, self._rows.take(ids))  # the usual case, fast
            rows, known = self._places(ids)
            return KeptPoints(self._as_tensor, rows) if known.all() else None

    def keep(
        self, ids: NDArray[np.int64], points: NDArray[np.float64], places: NDArray[np.int64] | None = None
    ) -> None:
        """Put the points ``(B, ·)`` of samples in place of older ones; of two of one sample the latter.

        Args:
            ids: ``(B,)``. points: theirs. places: as ``find`` gave them, if it did.

        Raises:
            MemoryError: there is no room for that many samples.
        """
        with self._lock:
            if points.shape[1] != self._points.shape[1]:
                points = self._fitted(points)
            if places is None:
                places, known = self._places(ids)
                if not known.all():
                    self._make_room(np.unique(ids[~known]))
                    places, _ = self._places(ids)
            self._points[places] = points

    def _set_points(self, points: NDArray[np.float64]) -> None:
        self._points, self._as_tensor = points, torch.from_numpy(points)

    def _fitted(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """The points as wide as those kept, which become as wide as they: NaN where nothing follows."""
        missing = points.shape[1] - self._points.shape[1]
        if missing > 0:
            self._set_points(_widened(self._points, missing))
        return _widened(points, -missing) if missing < 0 else points

    def _places(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the points, and which are known; any row where not."""
        if not len(self._ids):
            return np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool)
        places = self._ids.searchsorted(ids)
        return self._rows.take(places, mode="clip"), self._ids.take(places, mode="clip") == ids

    def _make_room(self, new: NDArray[np.int64]) -> None:
        """Rows for ids that are not known yet, ascending."""
        used, (room, width) = len(self._ids), self._points.shape
        needed = used + len(new)
        if needed > room:
            room = max(needed, 2 * room, _FIRST_ROOM)
            try:
                wider = np.empty((room, width))
            except MemoryError:
                raise MemoryError(
                    f"out of memory: samples: no room for the last solutions of {room} samples, of "
                    f"{8 * width} bytes each; call without samples, or layer.forget() what is not needed"
                ) from None
            wider[:used] = self._points[:used]
            self._set_points(wider)
        places = self._ids.searchsorted(new)
        self._ids = np.insert(self._ids, places, new)
        self._rows = np.insert(self._rows, places, np.arange(used, needed))
        self._ids_are_places = bool(self._ids[0] == 0) and int(self._ids[-1]) == needed - 1


def _widened(points: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    return np.pad(points, ((0, 0), (0, columns)), constant_values=np.nan)


class _Found(Protocol):
    """What a call found: a passage, or an answer."""

    def beginnings(self) -> Tensor:
        """x, y and s side by side, and what else the engine can use, NaN for instances not solved."""
        ...


class Beginning(Protocol):
    """Where a call begins, and what is to be kept of it."""

    def points(self, batch: int) -> Tensor | None:
        """Beginnings ``(B, ·)``, NaN for instances that begin cold; None if all do."""
        ...

    def keep(self, found: _Found, lightly: bool = False) -> None:
        """Remember what the call found."""
        ...


@dataclass(frozen=True)
class BeginAt:
    """A beginning of which nothing is kept: x, y and s side by side, ``(B, n + 2m)``."""

    beginnings: Tensor

    def points(self, batch: int) -> Tensor:
        """The points."""
        assert len(self.beginnings) == batch
        return self.beginnings

    def keep(self, found: _Found, lightly: bool = False) -> None:
        """Nothing is."""


class WarmStarts:
    """What a layer's next calls may begin from. A copy of the layer begins with nothing.

    By batch that is the last batch whose call asked for warm starts, or a later plain one, as long as its
    outputs live.

    Attributes:
        by_sample: the last point of each sample.
        last_batch: of those that asked for warm starts, without ids; None before the first.
        last_plain: gives the points of the last plain call after it, or None.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop all points."""
        self.by_sample = PointsBySample()
        self.last_batch: Tensor | None = None
        self.last_plain: Callable[[], Tensor | None] = lambda: None

    def asked(self, warm_start: bool, samples: Samples | None) -> "WarmStart":
        """What one call asks for.

        Raises:
            ValueError: there are samples but no warm start is asked for.
        """
        if samples is not None and not warm_start:
            raise ValueError(
                "samples: expected warm_start=True beside it, got warm_start=False; pass both to begin at "
                "the last solutions of these samples, or neither"
            )
        return WarmStart(self, warm_start, samples)

    def of_batch(self, batch: int) -> Tensor | None:
        """The last batch's points, if it had this size."""
        for points in (self.last_plain(), self.last_batch):
            if points is not None and len(points) == batch:
                return points
        return None


class WarmStart:
    """Where one call begins, and what it leaves.

    Args:
        starts: of the layer. wanted: whether the call asked for a warm start. samples: ids, as given.
    """

    def __init__(self, starts: WarmStarts, wanted: bool, samples: Samples | None) -> None:
        self._starts, self.wanted, self._samples = starts, wanted, samples
        self._ids: NDArray[np.int64] | None = None
        self._store, self._places = starts.by_sample, None  # of the samples, where all are known
        self._kept: KeptPoints | None = None

    def points(self, batch: int) -> Tensor | None:
        """Beginnings ``(B, ·)``, NaN for instances that begin cold; None if all do.

        Raises:
            ValueError, TypeError: the samples are not B nonnegative integers.
        """
        if not self.wanted:
            return None
        if self._samples is None:
            return self._starts.of_batch(batch)
        self._ids = _checked(self._samples, batch)
        found, self._places = self._store.find(self._ids)
        return None if found is None else torch.from_numpy(found)

    def where(self, batch: int) -> Tensor | KeptPoints | None:
        """The same, where they are kept if that can be."""
        if self.wanted and self._samples is not None:
            self._ids = _checked(self._samples, batch)
            if (kept := self._store.where(self._ids)) is not None:
                self._kept, self._places = kept, kept.places
        return self.points(batch) if self._kept is None else self._kept

    def keep(self, found: _Found, lightly: bool = False) -> None:
        """Remember the points that a call found, of solved instances.

        Args:
            found: by the call.
            lightly: whether all are solved and, unless it asked for a warm start, only a weak reference is
                kept.
        """
        if lightly and not self.wanted:
            reference = weakref.ref(found)
            self._starts.last_plain = lambda: None if (it := reference()) is None else it.beginnings()
            return
        if lightly and self._kept is not None and self._kept.renewed:
            return
        points = found.beginnings()
        if self._samples is None:
            self._starts.last_batch, self._starts.last_plain = points, lambda: None
            return
        ids, values = self._ids, (points if points.is_cpu else points.cpu()).numpy()
        assert ids is not None
        if lightly:
            self._store.keep(ids, values, self._places)
        else:
            solved = ~np.isnan(values[:, 0])
            self._store.keep(ids[solved], values[solved])


def _checked(samples: Samples, batch: int) -> NDArray[np.int64]:
    """Ids as an array ``(B,)``.

    Raises:
        ValueError, TypeError: they are not.
    """
    if isinstance(samples, Tensor):
        if is_wrapped(samples):
            raise ValueError("samples: not available under torch.func's transforms; use the batch dimension")
        plain = samples.dtype is torch.int64 and samples.is_cpu
        if plain and samples.shape == (batch,):  # the usual case, fast
            return samples.numpy()
        samples = samples.detach().cpu().numpy()
    ids = np.atleast_1d(np.asarray(samples))
    if ids.shape != (batch,):
        raise ValueError(f"samples: expected {batch} ids, one for each instance, got shape {ids.shape}")
    if ids.dtype.kind not in "iu" and batch:
        raise TypeError(
            f"samples: expected integer ids, such as the samples' places in the data set, got {ids.dtype}"
        )
    return ids.astype(np.int64, copy=False)
