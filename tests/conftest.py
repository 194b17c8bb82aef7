"""One thread for every test: the problems are small, and threads that wait for each other only spin.

And which engine serves: tests of what holds whichever it is use the fixture ``engine``, tests of the tensor
engine's own ways ``tensors``.
"""

import gc
import os
from collections.abc import Iterator

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # of pytest's workers and of the processes that tests start, too

import pytest  # noqa: E402
import torch  # noqa: E402

from problems.marks import ENGINES  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays, so the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Whatever a test sets, the next one begins with one thread."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_seed() -> None:
    """What a test draws is the same in every run, and whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn is what ``engine="auto"`` stands for; its name."""
    if request.param == "tensors":
        request.getfixturevalue("tensors")
    return request.param


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor engine is what ``engine="auto"`` stands for."""
    monkeypatch.setattr("cvxfold.engines.choose.is_obviously_dense", lambda structure: True)
