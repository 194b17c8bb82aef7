"""Which compiled module is loaded, and what is said where there is none."""

import shutil
from pathlib import Path

import pytest

from cvxfold.engines.lanes import library
from problems.processes import run_python

WIDTHS = {"v2": 2, "v3": 4, "v4": 8, "neon": 2, "generic": 2}
SHOW = """
from cvxfold.engines.lanes import library
print(library.instruction_set(), library.width(), library.library() is not None, library.why_not(), sep="|")
"""

needs_the_modules = pytest.mark.skipif(
    library.library() is None, reason=f"no compiled part: {library.why_not()}"
)


def shown(**environment: str) -> list[str]:
    """Instruction set, width, whether there is a library, and why not, in a process of its own."""
    out, err = run_python(SHOW, None, **{"CVXFOLD_ISA": "", **environment})
    assert not err
    return out.strip().split("|")


def refused(**environment: str) -> str:
    """The error that ends such a process."""
    out, err = run_python(SHOW, None, **environment)
    assert not out
    return err.strip().splitlines()[-1]


def compiled() -> list[str]:
    """Instruction sets that there are modules for."""
    return list(library._files())


def test_the_parts_of_the_answer_agree() -> None:
    there = library.library() is not None
    assert (library.instruction_set() is not None) == (library.why_not() is None) == there
    assert library.width() == WIDTHS.get(library.instruction_set() or "", 1)
    assert library.library() is library.library()


@needs_the_modules
def test_the_best_module_that_the_cpu_runs_is_taken() -> None:
    module = library.library()
    assert module is not None
    level = module.cvxfold_level()
    assert level in (0, 2, 3, 4)
    assert shown()[0] == (f"v{level}" if "v2" in compiled() else compiled()[0])


@needs_the_modules
@pytest.mark.parametrize("name", library.NAMES)
def test_an_instruction_set_can_be_asked_for(name: str) -> None:
    module = library.library()
    assert module is not None
    if name not in compiled():
        assert f"only {', '.join(compiled())} are compiled" in refused(CVXFOLD_ISA=name)
    elif name.startswith("v") and int(name[1:]) > module.cvxfold_level():
        assert "this CPU does not have it" in refused(CVXFOLD_ISA=name)
    else:
        assert shown(CVXFOLD_ISA=name) == [name, str(WIDTHS[name]), "True", "None"]


def test_the_compiled_part_can_be_turned_off() -> None:
    assert shown(CVXFOLD_ISA="none") == ["None", "1", "False", "CVXFOLD_ISA=none turns the compiled part off"]


def test_an_instruction_set_that_does_not_exist_is_an_error() -> None:
    message = "ValueError: CVXFOLD_ISA=avx: it is one of v2, v3, v4, neon, generic or none"
    assert refused(CVXFOLD_ISA="avx") == message


def test_a_folder_without_modules_is_named(tmp_path: Path) -> None:
    reason = f"there is no compiled part in CVXFOLD_LANES_DIR={tmp_path}"
    assert shown(CVXFOLD_LANES_DIR=str(tmp_path)) == ["None", "1", "False", reason]
    assert reason in refused(CVXFOLD_LANES_DIR=str(tmp_path), CVXFOLD_ISA="v2")


def test_a_module_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "lanes_v2.so").write_text("no module")
    _, _, there, reason = shown(CVXFOLD_LANES_DIR=str(tmp_path))
    assert there == "False"
    assert reason.startswith("the compiled part does not load: ")
    assert "does not load" in refused(CVXFOLD_LANES_DIR=str(tmp_path), CVXFOLD_ISA="v2")


def test_a_cpu_without_the_newest_takes_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: Path(name) for name in ("v2", "v3", "v4")}
    monkeypatch.setattr(library, "_load", lambda path: Module(path.name, level=3))
    monkeypatch.setattr(library, "_is_stale", lambda module: False)
    assert library._chosen(files, None).instruction_set == "v3"
    assert library._chosen({"v2": Path("v2")}, None).instruction_set == "v2"
    assert library._chosen(files, "v2").instruction_set == "v2"
    assert library._chosen(files, "v4").reason == "this CPU does not have it, but v2, v3"
    assert library._chosen(files, "neon").reason == "only v2, v3, v4 are compiled"
    monkeypatch.setattr(library, "_load", lambda path: Module(path.name, level=0))
    assert library._chosen(files, None).reason == "this CPU runs none of v2, v3, v4"


@needs_the_modules
def test_modules_that_are_older_than_their_sources_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, copy = Path(library.__file__).parent, tmp_path / "lanes"
    shutil.copytree(here, copy, ignore=shutil.ignore_patterns("CMakeFiles", ".cmake", "__pycache__"))
    files = library._files()
    monkeypatch.setattr(library, "__file__", str(copy / "library.py"))
    assert library._chosen(files, None).reason is None
    with (copy / "cpu.cpp").open("a") as source:
        source.write("// changed\n")
    reason = library._chosen(files, None).reason
    assert reason == "the compiled part is older than its sources: install cvxfold again"


class Module:
    """Stands for a loaded module on a CPU of that level."""

    def __init__(self, name: str, level: int) -> None:
        self.name = name
        self.cvxfold_level = lambda: level
