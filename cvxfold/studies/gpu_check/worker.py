"""The process that does the parts, one after the other, so that one that dies takes no other along."""

import faulthandler
import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def serve(pipe: Connection, log: Path) -> None:
    """Answer ``(kind, arguments)`` by ``("done", result)`` or ``("failed", text)``, until there comes None.

    Args:
        pipe: both ways.
        log: where what is printed goes.
    """
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    while (asked := pipe.recv()) is not None:
        kind, arguments = asked
        try:
            pipe.send(("done", _functions()[kind](**arguments)))
        except Exception:
            pipe.send(("failed", traceback.format_exc(limit=-6)))


def _functions() -> dict[str, Callable[..., dict[str, Any]]]:
    """What can be asked, imported here so that a process that is only started costs nothing."""
    from cvxfold.studies.gpu_check.facts import facts, floors, kernels
    from cvxfold.studies.gpu_check.waits import waits

    return {"facts": facts, "kernels": kernels, "floors": floors, "waits": waits, "cell": cell}


def cell(
    family: str,
    size: int | None,
    batch: int,
    device: str,
    peers: tuple[str, ...],
    profile: bool,
    time_limit: float,
) -> dict[str, Any]:
    """A cell of the benchmark, as a record; nothing but its name where no peer is installed or suits.

    Args:
        family, size, batch: of the problem (``None``: the family's own size). device: where the values are.
        peers: to measure.
        profile: whether to split cvxfold's own time.
        time_limit: seconds that each peer may spend.
    """
    from cvxfold.studies.bench import record
    from cvxfold.studies.bench.cell import measure_cell
    from cvxfold.studies.bench.families.table import FAMILIES
    from cvxfold.studies.bench.peers import PEERS
    from cvxfold.studies.bench.profile import profile as profiled
    from cvxfold.studies.bench.settings import BenchSettings

    kind = FAMILIES[family]
    order = size or kind.size
    settings = BenchSettings(rounds=5, time_limit=time_limit, device=device, most_on_host=128)
    here = [peer for name in peers if (peer := PEERS[name]).missing is None and peer.suits(kind)]
    if not here:
        return {"family": family, "size": order, "batch": batch, "measurements": []}
    found = measure_cell(kind, order, batch, here, settings)
    if profile:
        try:
            found = replace(found, profile=profiled(kind, order, batch, replace(settings, rounds=3)))
        except Exception:
            traceback.print_exc()  # of no weight beside the cell
    return record.of_cell(found)
