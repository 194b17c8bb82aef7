"""What the commands that take a problem have in common: its values, the device, the plot."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cvxfold.cli.named_problem import NamedProblem, ProblemError, load_problem
from cvxfold.display.figures import check_plot

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


class UsageError(ValueError):
    """A request that cannot be met.

    Args:
        hint: the argument at fault.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Request:
    """Arguments of a command, as they were given."""

    target: str
    batch: int
    device: str
    dtype: str
    seed: int
    gp: bool
    plot: Path | None

    def load(self) -> tuple[NamedProblem, list[Tensor]]:
        """The problem and values of its parameters.

        Raises:
            UsageError: naming the argument.
            ModuleNotFoundError: a plot needs matplotlib, which is missing; the message says how to get it.
        """
        device, dtype = device_named(self.device), _DTYPES.get(self.dtype)
        if dtype is None:
            raise UsageError(f"expected one of {', '.join(_DTYPES)}, got {self.dtype!r}", "--dtype")
        check_plot_path(self.plot)
        try:
            target = load_problem(self.target)
            return target, target.sample(self.batch, self.seed, dtype, device)
        except ProblemError as error:
            raise UsageError(str(error), "MODULE:FUNCTION") from error

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Errors of the problem or its values (not DPP, outside of what is declared, …) name the target."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.target}: {error}", "MODULE:FUNCTION") from error


def device_named(name: str) -> torch.device:
    """The device of a name.

    Raises:
        UsageError: PyTorch does not know it, or it is not here.
    """
    try:
        device = torch.device(name)
        torch.zeros(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{name!r} cannot be used here: {reason}", "--device") from error
    return device


def check_plot_path(path: Path | None) -> None:
    """Whether a plot can be saved there, if anywhere.

    Raises:
        UsageError, ModuleNotFoundError: it cannot; the message says why.
    """
    if path is None:
        return
    try:
        check_plot(path)
    except ValueError as error:
        raise UsageError(str(error), "--plot") from error
