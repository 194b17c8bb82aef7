"""The GPU check, on a CPU: the whole run, parts that hang or die, reports, places of waits, wheels."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cvxfold.studies.gpu_check import run, tests, waits
from cvxfold.studies.gpu_check.plan import FIRST, MAIN, Part, plan
from cvxfold.studies.gpu_check.show import text
from cvxfold.studies.gpu_check.wheels import Collection, without
from problems.marks import long
from problems.workers import serve


@long
def test_the_whole_run(tmp_path: Path) -> None:
    check = run.check("cpu", 100.0, tmp_path, plan("cpu", tiny=True))
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert [step["status"] for step in found["steps"]] == ["done"] * 5
    results = {step["name"]: step["result"] for step in found["steps"]}
    ours, theirs = results["bench portfolio 8"]["measurements"]
    assert ours["correct"] is True
    assert ours["engine"] in ("lanes", "tensors")
    assert ours["gradient_error"] < 1e-10
    assert theirs["gradient_error"] > 1e-8  # cvxpylayers' default, at the least not the same numbers
    assert results["waits portfolio 8"]["forward"]["operations"] > 0
    assert results["floors"]["bytes_a_second"] > 1e8
    shown = text(check)
    assert len(shown) < 12_000
    for said in ("bench", "portfolio", "cvxpylayers (cpu)", "stages, ms", "floors: copy"):
        assert said in shown


def test_kernels_are_shown_with_what_they_take() -> None:
    found = {"seconds": 12.34, "kernels": {"forward": (168, 1208), "points": (63, 376)}}
    step = {"name": "kernels", "kind": "kernels", "status": "done", "arguments": {}, "result": found}
    shown = text({"device": "cuda", "asked_seconds": 1.0, "steps": [step]})
    assert "ready after 12.3 s" in shown
    assert "forward 168, 1208 B; points 63, 376 B" in shown
    assert "kernels" in [part.kind for part in plan("cuda:1", tiny=False)]
    assert "kernels" not in [part.kind for part in plan("cpu", tiny=False)]


def test_the_plan_has_what_matters_first() -> None:
    names = [part.name for part in plan("cuda", tiny=False)]
    assert names[:2] == ["machine", "tests"]
    assert [name for name in names if name.startswith("bench")][:3] == [f"bench {f} {MAIN}" for f in FIRST]
    assert len(set(names)) == len(names)
    assert any("qpth" in name for name in names)


def test_one_that_hangs_or_dies_takes_no_other_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "serve", serve)
    kinds = ("fine", "crash", "fine", "hang", "fine", "fine")
    steps = [
        Part(kind, f"{place} {kind}", 20 if kind != "hang" else 0.3, 0.1) for place, kind in enumerate(kinds)
    ]
    steps.append(Part("fine", "late", 20, needs=1e6))
    found = run.check("cpu", 100.0, tmp_path, steps)["steps"]
    assert [step["status"] for step in found] == [
        "done",
        "died",
        "done",
        "timed out",
        "done",
        "done",
        "no time",
    ]
    assert "exit status 7\nlast words" in found[1]["result"]
    pids = [step["result"]["pid"] for step in found if step["status"] == "done"]
    assert pids[2] == pids[3]
    assert len(set(pids)) == 3
    shown = text({"device": "cpu", "asked_seconds": 100.0, "steps": found})
    assert "1 crash: died" in shown
    assert "3 hang: timed out: ended after 0 s" in shown
    assert "no time for: late" in shown


@pytest.mark.long
def test_how_tests_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    cuda: x\n    long: x\n")
    (tmp_path / "tests" / "test_some.py").write_text(
        "import pytest, time\npytestmark = pytest.mark.cuda\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 + 1 == 3\n"
        "@pytest.mark.long\ndef test_long(): assert False\n"
        "def test_skipped(): pytest.skip('no')\n"
        "def test_slow(): time.sleep(60)\n"
    )
    (tmp_path / "tests" / "test_other.py").write_text("raise RuntimeError('nobody should read this')\n")
    monkeypatch.setattr(tests, "_ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(run.__file__).parents[3]))
    found = tests.cuda_tests(tmp_path, 12.0)
    assert found["ended"] == "ended after 12 s"
    assert found["counts"] == {"passed": 1, "failed": 1, "skipped": 1}
    (failure,) = found["failures"]
    assert failure["test"].endswith("test_some.py::test_bad")
    assert "assert (1 + 1) == 3" in failure["text"]


def test_waits_are_counted_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch would say is said by a line that stands in the package."""
    for name, fake in (("get_sync_debug_mode", lambda: 0), ("set_sync_debug_mode", lambda mode: None)):
        monkeypatch.setattr(torch.cuda, name, fake)
    place = Path(run.__file__).parents[2] / "layer" / "made_up.py"
    code = "\n\nwarnings.warn('called a synchronizing CUDA operation')\nwarnings.warn('something else')"
    names: dict[str, Any] = {"warnings": warnings}
    places: Any = waits.Counter()
    with waits._told(places, torch.device("cuda")):
        for _ in range(2):
            exec(compile(code, str(place), "exec"), names)
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    assert dict(places) == {"layer/made_up.py:3": 2, "elsewhere": 1}


def made(folder: Path, name: str, version: str, needs: list[str], size: int = 10) -> None:
    """A wheel."""
    info = f"{name}-{version}.dist-info"
    metadata = "".join(
        [f"Name: {name}\nVersion: {version}\n", *(f"Requires-Dist: {need}\n" for need in needs)]
    )
    content = {f"{name}/big.so": "x" * size, f"{name}/__init__.py": "", f"{info}/METADATA": metadata}
    record = "".join(f"{file},sha256=0,{len(text)}\n" for file, text in content.items())
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in {**content, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)


def test_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    index = {
        "one": (
            "1.0",
            ["two>=2", "torch>=2.4", "extra_thing; extra == 'x'", "old; python_version < '3.9'"],
            10,
        ),
        "two": ("2.5", ["numpy<2"], 10),
        "large": ("1.0", ["one", "two"], 100_000),
    }

    def download(self: Collection, what: str, folder: Path) -> None:
        name = what.split(">")[0]
        if name not in index:
            raise LookupError(f"{what}: no such thing")
        version, needs, size = index[name]
        made(folder, name, version, needs, size)

    monkeypatch.setattr(Collection, "_download", download)
    collection = Collection("3.12", {"torch": None, "numpy": "2.5.2"}, tmp_path)
    for root in ("one>=1", "large", "missing"):
        collection.add(root, 50_000)
    assert list(collection.wheels) == ["one", "two"]
    large, missing = collection.left_out
    assert large.startswith("left out: large: 0.1 MB more (large 0.1)")
    assert missing == "left out: missing: missing: no such thing"
    assert collection.unmet() == ["not met: two asks for numpy<2, there is 2.5.2"]


def test_parts_are_left_out_of_wheels(tmp_path: Path) -> None:
    made(tmp_path, "some", "1.0", [])
    (path,) = tmp_path.glob("*.whl")
    without(path, ("some/big*",))
    with zipfile.ZipFile(path) as wheel:
        assert "some/big.so" not in wheel.namelist()
        record = wheel.read("some-1.0.dist-info/RECORD").decode()
    assert "big.so" not in record
    assert "some/__init__.py,sha256=0,0" in record
