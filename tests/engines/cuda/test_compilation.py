"""NVRTC takes the kernels for every architecture, where it is installed; it needs no device."""

from pathlib import Path

import pytest

from cvxfold.engines.cuda import toolkit

nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
ALL = ("SECOND_ORDER", "SEMIDEFINITE", "EXPONENTIAL", "POWER")


def _is_there() -> bool:
    try:
        return not nvrtc.nvrtcVersion()[0].value
    except Exception:
        return False


pytestmark = [pytest.mark.long, pytest.mark.skipif(not _is_there(), reason="no NVRTC")]


@pytest.mark.parametrize(
    ("architecture", "lanes", "without"),
    [("80", 32, ALL), ("100", 4, ALL), ("90", 4, ())],
    ids=["Ampere", "Blackwell", "Hopper, all cones"],
)
def test_the_kernels_compile(architecture: str, lanes: int, without: tuple[str, ...]) -> None:
    """To PTX, which holds every kernel: assembling it takes minutes."""
    text = toolkit.intermediate(f"compute_{architecture}", lanes, without).decode()
    assert f".target sm_{architecture}" in text
    for name in toolkit.NAMES:
        assert f".entry {name}(" in text


def test_what_does_not_compile_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "kernels.cu"
    broken.write_text("this is no C++")
    monkeypatch.setattr(toolkit, "_KERNELS", broken)
    with pytest.raises(RuntimeError, match="do not compile for compute_90"):
        toolkit.intermediate("compute_90", 32)
