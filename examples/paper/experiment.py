"""What the scripts of this folder share: arguments, training, a progress bar, a figure, numbers, a table."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from cvxfold.display.figures import check_plot, new_figure
from cvxfold.studies.allocations import allocations

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"

C = TypeVar("C")


@dataclass(frozen=True)
class Arguments:
    """What the command line said.

    Args:
        quick: whether small sizes were asked for.
        output: where the figure goes; the numbers go beside it, as JSON.
        seed: of all that is random.
        samples: to train on, if it was said how many.
        only: parts of the names of the contestants that are to run; none for all.
        chosen: a script's own options.
    """

    quick: bool
    output: Path
    seed: int
    samples: int | None
    only: Sequence[str]
    chosen: Mapping[str, Any]

    def among(self, contestants: Mapping[str, C]) -> dict[str, C]:
        """The contestants that are to run.

        Raises:
            ValueError: none is called so.
        """
        named = [name for name in contestants if any(part in name for part in self.only or [""])]
        if not named:
            raise ValueError(f"--only: expected parts of {list(contestants)}, got {list(self.only)}")
        return {name: contestants[name] for name in named}

    def scaled(self, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
        """Sizes of a training, a validation and a test set, in proportion to the samples asked for."""
        share = 1.0 if self.samples is None else self.samples / sizes[0]
        training, validation, test = (max(2, round(share * size)) for size in sizes)
        return training, validation, test


def start(
    name: str, description: str | None, argv: Sequence[str] | None = None, **choices: Sequence[Any]
) -> Arguments:
    """Read the command line and set PyTorch up: one thread, for the problems are small.

    Args:
        name: of the figure; what is chosen other than by default is added to it.
        choices: a script's own options, what each may be, with the default in front.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, less than three minutes")
    parser.add_argument("--output", type=Path, help="where the figure goes; by default to docs/figures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, help="to train on, where a script can do with fewer")
    parser.add_argument("--only", nargs="+", default=[], help="contestants to run, by parts of their names")
    for option, values in choices.items():
        parser.add_argument(f"--{option}", type=type(values[0]), choices=values, default=values[0])
    given = parser.parse_args(argv)
    chosen = {option: getattr(given, option) for option in choices}
    special = [str(value) for option, value in chosen.items() if value != choices[option][0]]
    output = given.output or FIGURES / f"{'_'.join([name, *special])}.png"
    check_plot(output)
    torch.set_num_threads(1)
    return Arguments(given.quick, output, given.seed, given.samples, given.only, chosen)


@dataclass
class Course:
    """How a contestant trained, and what a loss gradient cost it.

    Args:
        score: on data not trained on, before training and after each epoch.
        seconds: of the processor, for each epoch.
        bytes: the most that tensors held for one loss gradient.
        gradient_error: ‖found − true‖ / ‖true‖ of that gradient, or the like.
        iterations: of the backward pass, the median over the batch, where there were any.
        since: the epoch that it began after.
    """

    score: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bytes: float = float("nan")
    gradient_error: float = float("nan")
    iterations: float = float("nan")
    since: int = 0

    def count(self, layer: Any) -> None:
        """Note the iterations of the backward pass that a layer did last, if it says."""
        report = getattr(layer, "report", None)
        if report is not None and report.backward is not None:
            self.iterations = float(report.backward.iterations.double().median())


@dataclass(frozen=True)
class Plan:
    """How everybody trains: samples in their order, batches of so many, epochs."""

    samples: int
    batch: int
    epochs: int

    @property
    def batches(self) -> list[slice]:
        """The rows of each batch."""
        return [slice(i, min(i + self.batch, self.samples)) for i in range(0, self.samples, self.batch)]

    @property
    def steps(self) -> int:
        """Of the optimizer."""
        return self.epochs * len(self.batches)


def trained(
    loss: Callable[[slice], Tensor],
    optimizer: torch.optim.Optimizer,
    score: Callable[[], float],
    plan: Plan,
    told: Callable[[], None],
) -> Course:
    """Train.

    Args:
        loss: of a batch, given its rows.
        optimizer: of what it depends on.
        score: of that, now.
        told: is called after each step.
    """
    course = Course([score()])
    for _ in range(plan.epochs):
        began = time.process_time()
        for rows in plan.batches:
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
            told()
        course.seconds.append(time.process_time() - began)
        course.score.append(score())
    return course


def best_kept(model: nn.Module, score: Callable[[], float]) -> tuple[Callable[[], float], Callable[[], None]]:
    """A lower score is better: the same score, which keeps the best weights; and what restores them."""
    best: dict[str, Any] = {"score": float("inf")}

    def kept() -> float:
        now = score()
        if now < best["score"]:
            best.update(score=now, state={name: w.clone() for name, w in model.state_dict().items()})
        return now

    return kept, lambda: model.load_state_dict(best["state"]) and None


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, int]:
    """The gradient of a loss, and the most bytes that tensors hold after the forward pass, for it."""
    at = at.detach().requires_grad_()
    loss(at)  # makes what is kept from call to call
    with allocations(torch.device("cpu")) as ledger:
        value = loss(at)
        ledger.mark()
        (found,) = torch.autograd.grad(value, at)
        return found, ledger.peak


class Experiment:
    """One run: a progress bar while it lasts, then a figure and a file of numbers.

    Args:
        given: the command line.
        what: is counted. total: how much of it there is.
    """

    def __init__(self, given: Arguments, what: str, total: int) -> None:
        self._given, self._console = given, Console()
        self._progress = Progress(console=self._console)
        self._task = self._progress.add_task(what, total=total)
        self._figure: Any = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        if self._figure is not None and error[0] is None:
            self._figure.savefig(self._given.output, dpi=110)
            self._console.print(f"wrote {self._given.output} and {self.numbers}")

    @property
    def numbers(self) -> Path:
        """The file of numbers."""
        return self._given.output.with_suffix(".json")

    def advance(self, doing: str, by: int = 1) -> None:
        """Tell what has been done."""
        self._progress.update(self._task, advance=by, description=doing)

    def save(self, found: dict[str, Any]) -> None:
        """Write the numbers, with what they depend on; what was written before is no longer there."""
        about = {
            "quick": self._given.quick,
            **self._given.chosen,
            "seed": self._given.seed,
            "seconds": time.perf_counter() - self._began,
            "torch": torch.__version__,
            "processor": platform.machine(),
        }
        self.numbers.write_text(json.dumps({"about": about, **found}, indent=1) + "\n", encoding="utf-8")

    def figure(self, panels: int, title: str, label: str) -> list[Any]:
        """Axes side by side."""
        self._figure = new_figure(figsize=(6.5 * panels, 3.8))
        self._figure.suptitle(title)
        axes = list(self._figure.subplots(1, panels, squeeze=False)[0])
        axes[0].set_xlabel(label)
        return axes

    def keep(self, courses: Mapping[str, Course], more: Mapping[str, Any] | None = None) -> None:
        """Write the courses, and ``more``: so far, as a run that is cut short loses only what it was at."""
        self.save({"courses": {name: vars(course) for name, course in courses.items()}, **(more or {})})

    def compare(
        self,
        courses: Mapping[str, Course],
        score: str,
        title: str,
        more: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Any:
        """Draw and print courses: scores by epoch, seconds an epoch.

        Args:
            score: its name.
            more: columns of the table, of which not every course need have a number.

        Returns:
            The left axes.
        """
        left, right = self.figure(2, title, "epoch")
        seconds = [float(np.median(course.seconds)) for course in courses.values()]
        for name, course in courses.items():
            left.plot(range(course.since, course.since + len(course.score)), course.score, label=name)
        left.set_ylabel(score)
        left.legend()
        right.bar(list(courses), seconds)
        right.set_yscale("log")
        right.set_ylabel("seconds an epoch")
        right.tick_params(axis="x", labelrotation=20)
        self.table([
            {
                "contestant": name,
                score: course.score[-1],
                "s/epoch": one,
                "MB": course.bytes / 1e6,
                "gradient error": course.gradient_error,
                "iterations": course.iterations,
                **{column: values.get(name, float("nan")) for column, values in (more or {}).items()},
            }
            for (name, course), one in zip(courses.items(), seconds, strict=True)
        ])  # fmt: skip
        return left

    def table(self, rows: Sequence[dict[str, Any]]) -> None:
        """Print rows with the same keys."""
        table = Table()
        for name in rows[0]:
            table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
        for row in rows:
            table.add_row(*(one if isinstance(one, str) else f"{one:.3g}" for one in row.values()))
        self._console.print(table)
