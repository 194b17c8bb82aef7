"""Where cvxfold's own time goes, stage by stage, beside what no implementation could do without.

The stages are told apart by the seams of the layer: what is between two of them is the difference. A seam
that a layer does not pass, because an engine does several stages in one call, leaves its time with the stage
around it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu

from cvxfold.problem.structure import Structure
from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.machine import Rates, rates
from cvxfold.studies.bench.passes import drawn, one_pass, weights_of
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.studies.measure import timed
from cvxfold.torch import CvxpyLayer

STAGES = {
    "set-up": "canonicalization and the layer's own maps, once",
    "checks and map": "argument checks, parameters to the data of the cone program",
    "engine: solve": "the forward pass of the engine",
    "forward: rest": "report, complaints, recovery of the variables, autograd",
    "engine: differentiate": "the adjoint of the engine",
    "gradient: rest": "screen, diagnosis and report of the gradients",
    "data gradients": "gradients on the data, and back through the map to the parameters",
    "floor: memory": "parameters read, outputs and gradients written and read, once, at the speed of a copy",
    "floor: factorization": "one sparse factorization an instance, at the speed of a product of matrices",
}
"""The stages and what each of them is; the last two are floors, not parts of the time."""


def profile(family: Family, size: int, batch: int, settings: BenchSettings) -> dict[str, float]:
    """Seconds by stage, medians over rounds after a first call; all but the set-up are of one call."""
    stated = family.state(size)
    layer, setup = timed(
        lambda: CvxpyLayer(stated.problem, stated.parameters, stated.variables, gp=stated.gp),
        torch.device("cpu"),
    )
    clock, session = _Clock(torch.device(settings.device)), layer.session
    clock.watch(layer, "program")
    clock.watch(session, "solve")
    clock.watch(session, "differentiate")
    clock.watch(session.engine, "solve", "engine solve")
    clock.watch(session.engine, "differentiate", "engine differentiate")
    shortcut = session.shortcut(layer._canonical)
    if shortcut is not None:
        clock.watch_shortcut(shortcut)
    weights = [weight.to(clock.device) for weight in weights_of(family, size, batch, settings.seed)]
    rows: list[dict[str, float]] = []
    spent, moved = 0.0, 0
    for turn in range(-1, settings.rounds):
        values = [value.to(clock.device) for value in drawn(family, size, batch, settings.seed, turn)]
        clock.seconds.clear()
        done = one_pass(layer, values, weights)
        if turn < 0:
            continue
        rows.append(_stages(clock.seconds, done.forward, done.backward))
        moved = 8 * (2 * sum(v.numel() for v in values) + 3 * sum(out.numel() for out in done.outputs))
        spent += done.seconds
        if spent > settings.time_limit:
            break
    found = {"set-up": setup, **{name: median(row[name] for row in rows) for name in rows[0]}}
    return found | _floors(rates(clock.device), moved, batch * multiply_adds(layer._canonical.structure))


def multiply_adds(structure: Structure) -> int:
    """Of one factorization LDLᵀ of [[P + I, Aᵀ], [A, −I]], by SuperLU's minimum degree ordering.

    The matrix that any second-order method factors has this pattern; the values here are made up. A column of
    L with c entries below the diagonal takes c (c + 3) / 2.
    """
    n, m = structure.n, structure.m
    parts = (structure.P_entries, structure.A_entries)
    (p_rows, p_columns), (a_rows, a_columns) = ([np.asarray(index) for index in part] for part in parts)
    rows = np.concatenate([p_rows, p_columns, n + a_rows, a_columns])
    columns = np.concatenate([p_columns, p_rows, a_columns, n + a_rows])
    pattern = sp.coo_matrix((np.full(len(rows), 1e-3), (rows, columns)), (n + m, n + m)).tocsc()
    matrix = (pattern + sp.diags(np.concatenate([np.full(n, 10.0), np.full(m, -10.0)]))).tocsc()
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    below = np.diff(factor.L.indptr) - 1
    return int((below * (below + 3) // 2).sum())


class _Clock:
    """Seconds by stage, with the device idle before and after each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, method: str, name: str | None = None) -> None:
        """Add the time that a method of this object takes."""
        original: Callable[..., Any] = getattr(owner, method)

        def watched(*args: Any, **kwargs: Any) -> Any:
            value, seconds = timed(lambda: original(*args, **kwargs), self.device)
            self.seconds[name or method] += seconds
            return value

        object.__setattr__(owner, method, watched)  # a frozen record can be watched too

    def watch_shortcut(self, shortcut: Any) -> None:
        """The same of an engine's way from parameters to variables and back, which counts as the engine's."""
        original = shortcut.solve

        def solve(*args: Any, **kwargs: Any) -> Any:
            passage, seconds = timed(lambda: original(*args, **kwargs), self.device)
            self.seconds["engine solve"] += seconds
            self.watch(passage, "differentiate", "engine differentiate")
            return passage

        shortcut.solve = solve


def _stages(clock: Mapping[str, float], forward: float, backward: float) -> dict[str, float]:
    return {
        "checks and map": clock["program"],
        "engine: solve": clock["engine solve"],
        "forward: rest": forward - clock["program"] - clock["engine solve"],
        "engine: differentiate": clock["engine differentiate"],
        "gradient: rest": max(0.0, clock["differentiate"] - clock["engine differentiate"]),
        "data gradients": backward - max(clock["differentiate"], clock["engine differentiate"]),
    }


def _floors(speed: Rates, moved: int, operations: int) -> dict[str, float]:
    return {
        "floor: memory": moved / speed.bandwidth,
        "floor: factorization": operations / speed.multiply_adds,
    }
