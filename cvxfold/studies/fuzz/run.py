"""Many structures, in this process or in several."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from cvxfold.display.progress import Progress, told
from cvxfold.studies.fuzz.judge import Judgement
from cvxfold.studies.fuzz.solve import examine_structure


def fuzz(
    count: int,
    seed: int = 0,
    batch: int = 8,
    workers: int = 1,
    time_limit: float | None = None,
    progress: Progress | bool = True,
) -> list[Judgement]:
    """The outcomes of ``count`` instances.

    Args:
        count: of instances; the last batch may be a smaller one.
        seed: structure k of a seed depends on the two numbers only.
        batch: instances of each structure.
        workers: processes, each on one thread.
        time_limit: seconds for each forward pass; what it leaves unsolved is flagged.
        progress: whether a terminal or a notebook shows how far this is, once it takes two seconds; or a
            function that is told what is being done, how many steps are done, and of how many.

    Example:
        >>> outcomes = fuzz(240, seed=1)
        >>> [outcome for outcome in outcomes if outcome.result == "silently wrong"]
        []
    """
    sizes = [min(batch, count - start) for start in range(0, count, batch)]
    outcomes: list[Judgement] = []
    with told(progress) as advance:
        for found in _each(seed, sizes, workers, time_limit):
            outcomes += found
            wrong = sum(one.result in ("silently wrong", "crashed") for one in outcomes)
            advance(f"{wrong} silently wrong", len(outcomes), count)
    return outcomes


def _each(seed: int, sizes: list[int], workers: int, time_limit: float | None) -> Iterator[list[Judgement]]:
    numbers = range(len(sizes))
    if workers == 1:
        for number, size in zip(numbers, sizes, strict=True):
            yield examine_structure(seed, number, size, time_limit)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield from pool.map(examine_structure, [seed] * len(sizes), numbers, sizes, [time_limit] * len(sizes))
