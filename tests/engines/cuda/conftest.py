"""The kernels' text compiled for the CPU, once for each number of instances of a warp."""

import os
from collections.abc import Callable
from functools import cache

import pytest

from problems.emulated import Emulator


@pytest.fixture(scope="package")
def emulator_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Emulator]:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all pytest's processes
    folder = folder / "emulator"
    folder.mkdir(exist_ok=True)
    return cache(lambda lanes: Emulator(lanes, folder))
