"""``cvxfold.fold`` is a function and a package, whatever was imported before."""

import subprocess
import sys

import pytest

import cvxfold
from cvxfold.fold import GMRES, Folded, fold
from problems.marks import long

USE = (
    "import torch; f = cvxfold.fold(lambda x, c: 0.5 * (x + c), start=torch.zeros_like); "
    "c = torch.ones(2, dtype=torch.float64, requires_grad=True); f(c).sum().backward(); "
    "assert (c.grad - 1).abs().max() < 1e-7; "
    "from cvxfold.fold import GMRES; assert cvxfold.fold.GMRES is GMRES"
)


@long
@pytest.mark.parametrize(
    "first",
    ["import cvxfold", "import cvxfold; from cvxfold.fold import GMRES", "import cvxfold, cvxfold.torch"],
)
def test_in_whatever_order(first: str) -> None:
    subprocess.run([sys.executable, "-c", f"{first}; {USE}"], check=True)


def test_the_function_is_the_package() -> None:
    assert callable(cvxfold.fold)
    assert isinstance(cvxfold.fold(lambda x: x / 2, start=0.0), Folded)
    assert isinstance(fold(lambda x: x / 2, start=0.0, backward=GMRES()), Folded)
    assert "fold" in cvxfold.__all__
