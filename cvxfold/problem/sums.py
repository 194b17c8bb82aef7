"""Whether a canonical form adds up: rows, columns, entries, cones and maps against each other."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from cvxpy.version import version

from cvxfold.problem.structure import Structure


def check(structure: Structure, maps: dict[str, sp.csr_array], rows: int | None) -> None:
    """Refuse a canonical form whose parts do not fit together, before anything is built on it.

    Args:
        structure: sizes, cones and the places of entries.
        maps: "P", "q", "A" and "b" from parameters, with a trailing 1, to the stored entries.
        rows: of [−A | b], as stored; None where there is none.

    Raises:
        ValueError: they do not; the message says where.
    """
    n, m, cones = structure.n, structure.m, structure.cones.rows
    if rows is not None and rows != cones:
        raise _fault(f"its constraints have {rows} rows, its cones {cones}")
    stored = {
        "P": structure.P_entries.shape[1],
        "q": n,
        "A": structure.A_entries.shape[1],
        "b": len(structure.b_entries),
    }
    widths = {name: _shape(map_)[1] for name, map_ in maps.items()}
    if len(set(widths.values())) > 1 or 0 in widths.values():
        raise _fault(f"its maps from parameters have different numbers of columns: {widths}")
    for name, entries in stored.items():
        if _shape(maps[name])[0] != entries:
            raise _fault(
                f"the map to {name} has {_shape(maps[name])[0]} rows, {name} {entries} stored entries"
            )
    places = (
        ("P", structure.P_entries, (n, n)),
        ("A", structure.A_entries, (m, n)),
        ("b", structure.b_entries[None], (m,)),
    )
    for name, index, shape in places:
        outside = (index < 0) | (index >= np.array(shape)[:, None])
        if outside.any():
            raise _fault(f"{name} has {int(outside.any(0).sum())} entries outside of its shape {shape}")
        if not _all_different(np.atleast_1d(np.ravel_multi_index(tuple(index), shape))):
            raise _fault(f"{name} has entries twice")


def _all_different(places: np.ndarray) -> bool:
    """Whether no number stands twice; sooner known where they ascend."""
    if (places[1:] > places[:-1]).all():
        return True
    ascending = np.sort(places)
    return bool((ascending[1:] != ascending[:-1]).all())


def _shape(matrix: Any) -> tuple[int, int]:
    return matrix.shape


def _fault(what: str) -> ValueError:
    return ValueError(
        f"problem: cvxpy {version} made a canonical form of it that does not add up: {what}. Expressions "
        "with more than two dimensions are the usual cause: write those with matrices"
    )
