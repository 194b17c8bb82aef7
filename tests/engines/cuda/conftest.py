"""The kernels' text compiled for the CPU, once for each number of instances of a warp."""

from collections.abc import Callable
from functools import cache

import pytest

from problems.emulated import Emulator


@pytest.fixture(scope="package")
def emulator_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Emulator]:
    folder = tmp_path_factory.mktemp("emulator")
    return cache(lambda lanes: Emulator(lanes, folder))
