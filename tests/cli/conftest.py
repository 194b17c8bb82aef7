"""What the commands are asked about."""

from pathlib import Path

import pytest

from problems.targets import TARGETS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Problems in a file."""
    (tmp_path / "my_problems.py").write_text(TARGETS)
    return tmp_path / "my_problems.py"


@pytest.fixture
def target(file: Path) -> str:
    """The portfolio problem in that file."""
    return f"{file}:portfolio"
