"""``cvxfold fuzz``: what is asked, and how it is shown."""

import json
import time

import torch
import typer
from rich.console import Console

from cvxfold.studies.fuzz import figures
from cvxfold.studies.fuzz.run import fuzz


def run(
    count: int, seed: int, batch: int, workers: int, time_limit: float | None, show: int, as_json: bool
) -> bool:
    """Solve and print; whether nothing is silently wrong."""
    torch.set_num_threads(1)  # the programs are too small for more
    started = time.perf_counter()
    outcomes = fuzz(count, seed, batch, workers, time_limit)
    seconds, wrong = time.perf_counter() - started, figures.wrong(outcomes)
    if as_json:
        settings = {
            "count": count,
            "seed": seed,
            "batch": batch,
            "time_limit": time_limit,
            "seconds": seconds,
        }
        typer.echo(json.dumps({**settings, **figures.figures(outcomes)}, indent=2))
        return not wrong
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(figures.table(outcomes))
    console.print(figures.notes(outcomes))
    console.print(f"{count / seconds:.0f} instances a second")
    for one in wrong[:show]:
        console.print(figures.reproduction(one))
    if len(wrong) > show:
        console.print(f"… ({len(wrong)} in all)")
    return not wrong
