"""A benchmark: cell by cell."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace

import torch

from cvxfold.display.progress import Progress, told
from cvxfold.studies.bench.cell import measure_cell
from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.families.table import FAMILIES, families
from cvxfold.studies.bench.machine import described, limited
from cvxfold.studies.bench.passes import drawn, one_pass, weights_of
from cvxfold.studies.bench.peers import Peer, peers
from cvxfold.studies.bench.profile import profile
from cvxfold.studies.bench.result import BenchCell, BenchResult
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.studies.bench.training import Training, train


def bench(
    settings: BenchSettings, asked: Sequence[Peer] | None = None, progress: Progress | bool = True
) -> BenchResult:
    """Measure everybody on everything, side by side in this process.

    An interrupt (Ctrl-C) ends it early, with the cells that are done.

    Args:
        settings: what to measure.
        asked: the peers themselves, in place of those that the settings name; cvxfold's first.
        progress: whether a terminal or a notebook shows how far this is, once it takes two seconds; or a
            function that is told what is being done, how many steps are done, and of how many.

    Raises:
        ValueError: there is no family or peer of a name; the message lists those there are.
    """
    found = families(settings.families)
    everybody = list(peers(settings.peers) if asked is None else asked)
    here = [peer for peer in everybody if peer.missing is None]
    skipped = tuple(f"{peer.name}: skipped: {peer.missing}" for peer in everybody if peer.missing is not None)
    places = [place for family in found for place in _places(family, settings)]
    cells: list[BenchCell] = []
    training: list[Training] = []
    with (
        told(progress) as tell,
        warnings.catch_warnings(),
        limited(settings.threads),
        suppress(KeyboardInterrupt),
    ):
        warnings.simplefilter("ignore")
        warm_up(here, settings)
        for done, (family, size, batch) in enumerate(places):
            tell(f"{family.name} {size}, batch {batch}", done, len(places))
            if settings.training:
                training += train(family, size, batch, here, settings)
                continue
            cell = measure_cell(family, size, batch, here, settings)
            if settings.profile:
                cell = replace(cell, profile=profile(family, size, batch, settings))
            cells.append(cell)
    machine = described(settings.threads, torch.device(settings.device))
    return BenchResult(asdict(settings), machine, tuple(cells), skipped, tuple(training))


def warm_up(everybody: Sequence[Peer], settings: BenchSettings) -> None:
    """Let everybody load what it loads once a process, which is nobody's set-up of a layer."""
    family, size = FAMILIES["portfolio"], 3
    weights = weights_of(family, size, 1, settings.seed)
    for peer in everybody:
        with suppress(Exception):  # if it matters, it comes again where it is reported
            layer = peer.layer(family, family.state(size), settings.threads)
            values = drawn(family, size, 1, settings.seed, 0)
            where = settings.device if peer.on_device else "cpu"
            one_pass(layer, [v.to(where) for v in values], [w.to(where) for w in weights])


def _places(family: Family, settings: BenchSettings) -> list[tuple[Family, int, int]]:
    return [
        (family, size, batch)
        for size in settings.sizes or (family.size,)
        for batch in settings.batches or family.batches
    ]
