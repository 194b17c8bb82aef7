"""The example of a large parameter: its check is right and can fail, and a lack of memory is told."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from problems.marks import long

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return import_module("large_parameter")


def projected(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The projection ``(n,)`` of b onto {x : A x ≤ 1} by Hildreth's dual ascent, row by row, to rounding."""
    x, price = b.clone(), torch.zeros_like(b)
    for _ in range(500):
        for i, row in enumerate(A):
            step = max(float(-price[i]), float((row @ x - 1) / (row @ row)))
            price[i] += step
            x -= step * row
    return x


def test_the_closed_form_is_that_of_the_problem(example: Any) -> None:
    """Its x against another algorithm, its gradient against differences of that."""
    A, b = (2 * value.detach() for value in example.values_of(8))
    x = projected(A, b)
    direction = [torch.randn_like(A), torch.randn_like(b)]
    moved = [projected(A + t * direction[0], b + t * direction[1]).square().sum() / 2 for t in (1e-5, -1e-5)]
    slope = float(moved[0] - moved[1]) / 2e-5
    closed, *slopes = example.gradients(A.numpy(), b.numpy(), x.numpy())
    assert torch.from_numpy(closed).allclose(x, atol=1e-9)
    along = sum(float((torch.from_numpy(g) * d).sum()) for g, d in zip(slopes, direction, strict=True))
    assert along == pytest.approx(slope, rel=1e-6)
    assert abs(slope) > 0.1


def test_cvxfold_is_right(example: Any) -> None:
    from cvxfold.torch import CvxpyLayer

    problem, parameters, x = example.problem_of(40)
    A, b = example.values_of(40)
    (found,) = CvxpyLayer(problem, parameters=parameters, variables=[x])(A, b)
    (0.5 * found.square().sum()).backward()
    assert max(example.errors(A, b, found)) < 1e-10
    b.grad[3] += 1e-3
    assert max(example.errors(A, b, found)) > 1e-4


@long
@pytest.mark.skipif(sys.platform != "linux", reason="no limit of a process's memory")
def test_a_lack_of_memory_is_told() -> None:
    command = [sys.executable, str(FOLDER / "large_parameter.py"), "--size", "2000", "--only", "cvxpylayers"]
    told = subprocess.run([*command, "--limit", "12"], capture_output=True, text=True, check=True).stdout
    assert told.startswith("cvxpylayers: MemoryError: Unable to allocate ")
