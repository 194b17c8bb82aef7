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


FIRST = ["import cvxfold", "import cvxfold; from cvxfold.fold import GMRES", "import cvxfold, cvxfold.torch"]
EACH = f"""
import os, sys
import cvxpylayers.torch  # and all that is slow; nothing of cvxfold

for first in {FIRST!r}:
    assert not any(name.startswith("cvxfold") for name in sys.modules)
    if not os.fork():
        exec(first + "; " + {USE!r})
        print(first, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, first
"""


@long
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_in_whatever_order() -> None:
    """In processes that have imported nothing of cvxfold before, forked from one."""
    done = subprocess.run([sys.executable, "-c", EACH], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.splitlines() == FIRST


def test_the_function_is_the_package() -> None:
    assert callable(cvxfold.fold)
    assert isinstance(cvxfold.fold(lambda x: x / 2, start=0.0), Folded)
    assert isinstance(fold(lambda x: x / 2, start=0.0, backward=GMRES()), Folded)
    assert "fold" in cvxfold.__all__
