"""Everything here is about the tensor engine."""

import pytest


@pytest.fixture(autouse=True)
def _by_tensors(tensors: None) -> None:
    """It serves every layer."""
