"""A benchmark: cell by cell."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace

from cvxfold.studies.bench.cell import measure_cell
from cvxfold.studies.bench.families.family import Family
from cvxfold.studies.bench.families.table import families
from cvxfold.studies.bench.machine import described, limited
from cvxfold.studies.bench.peers import Peer, peers
from cvxfold.studies.bench.profile import profile
from cvxfold.studies.bench.result import BenchCell, BenchResult
from cvxfold.studies.bench.settings import BenchSettings
from cvxfold.studies.bench.training import Training, train
from cvxfold.studies.progress import Progress


def bench(
    settings: BenchSettings, asked: Sequence[Peer] | None = None, progress: Progress | None = None
) -> BenchResult:
    """Measure everybody on everything, side by side in this process.

    Args:
        settings: what to measure.
        asked: the peers themselves, in place of those that the settings name; cvxfold's first.
        progress: told what is measured.

    Raises:
        ValueError: there is no family or peer of a name; the message lists those there are.
    """
    found = families(settings.families)
    everybody = list(peers(settings.peers) if asked is None else asked)
    here = [peer for peer in everybody if peer.missing is None]
    skipped = tuple(f"{peer.name}: skipped: {peer.missing}" for peer in everybody if peer.missing is not None)
    places = [place for family in found for place in _places(family, settings)]
    tell = progress or (lambda what, done, total: None)
    cells: list[BenchCell] = []
    training: list[Training] = []
    with warnings.catch_warnings(), limited(settings.threads):
        warnings.simplefilter("ignore")
        for done, (family, size, batch) in enumerate(places):
            tell(f"{family.name} {size}, batch {batch}", done, len(places))
            if settings.training:
                training += train(family, size, batch, here, settings)
                continue
            cell = measure_cell(family, size, batch, here, settings)
            if settings.profile:
                cell = replace(cell, profile=profile(family, size, batch, settings))
            cells.append(cell)
    tell("", len(places), len(places))
    machine = described(settings.threads)
    return BenchResult(asdict(settings), machine, tuple(cells), skipped, tuple(training))


def _places(family: Family, settings: BenchSettings) -> list[tuple[Family, int, int]]:
    return [
        (family, size, batch)
        for size in settings.sizes or (family.size,)
        for batch in settings.batches or family.batches
    ]
