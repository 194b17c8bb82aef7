"""The notebooks: stored as they were executed, and each runs in its short form without a warning.

A cell that is meant to warn says so by a tag, ``warns: Name``; what it warns is then not stored.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from problems.kernels import client_of, forked_kernels
from problems.marks import long
from problems.pages import TOP

FOLDER = TOP / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 250_000
SECONDS = 240.0
"""For one cell in the short form, on a machine that is busy."""

PLACES = re.compile(
    r"(?<![\w.:])/(?:work|home|root|tmp|usr|opt|mnt|Users|private)/|[A-Z]:\\|site-packages| at 0x"
)
"""What a notebook is not to tell: where it was made."""

Notebook = dict[str, Any]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Notebook:
    return json.loads(path.read_text(encoding="utf-8"))


def cells(notebook: Notebook, kind: str = "code") -> list[Notebook]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def text_of(cell: Notebook) -> str:
    return "".join(cell["source"])


def printed(cell: Notebook) -> Iterator[str]:
    """All that a cell shows but its pictures."""
    for output in cell.get("outputs", []):
        yield "".join(output.get("text", []))
        yield from ("".join(data) for kind, data in output.get("data", {}).items() if "image" not in kind)
        yield "\n".join(output.get("traceback", []))


def warnings_of(cell: Notebook) -> set[str]:
    """The kinds of warnings in what a cell printed."""
    streams = ["".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stderr"]
    return {kind for stream in streams for kind in re.findall(r"\b(\w*Warning)\b", stream)}


def expected(cell: Notebook) -> set[str]:
    """The kinds of warnings that a cell is meant to raise."""
    tags = cell.get("metadata", {}).get("tags", [])
    return {tag.removeprefix("warns: ") for tag in tags if tag.startswith("warns: ")}


def unexpected(notebook: Notebook) -> list[tuple[str, str]]:
    """Cells by their first line, and warnings that they give and should not, or the other way round."""
    found = [
        (text_of(cell).partition("\n")[0], warnings_of(cell) ^ expected(cell)) for cell in cells(notebook)
    ]
    return [(line, kind) for line, kinds in found for kind in sorted(kinds)]


def faults(notebook: Notebook) -> list[str]:
    """What is wrong with how a notebook is stored."""
    code, found = cells(notebook), []
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed from the first cell to the last")
    if [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]:
        found.append("an error")
    found += [f"a warning: {kind}" for cell in code for kind in sorted(warnings_of(cell))]
    shown = [text for cell in notebook["cells"] for text in (text_of(cell), *printed(cell))]
    found += [f"a place: {match[0]}" for text in shown if (match := PLACES.search(text))]
    if not any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"]):
        found.append("no picture")
    if not text_of(notebook["cells"][0]).startswith("# "):
        found.append("no title")
    return found


@each_notebook
def test_it_is_stored_as_executed(path: Path) -> None:
    assert faults(read(path)) == []
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_it_has_a_short_form_and_a_layer(path: Path) -> None:
    source = "\n".join(text_of(cell) for cell in cells(read(path)))
    assert 'os.environ.get("CVXFOLD_QUICK")' in source
    assert "from cvxfold.torch import CvxpyLayer" in source


@each_notebook
def test_its_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(text_of(cell) for cell in cells(read(path), "markdown"))
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    assert [link for link in links if not (FOLDER / link).resolve().exists()] == []


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command that starts a kernel for a short form."""
    for package in ("nbclient", "nbformat", "ipykernel", "matplotlib", "sklearn", "skfolio", "tqdm"):
        pytest.importorskip(package)
    with forked_kernels(tmp_path_factory.mktemp("kernels"), CVXFOLD_QUICK="1") as command:
        yield command


@long
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@each_notebook
def test_its_short_form_runs(path: Path, tmp_path: Path, kernels: list[str]) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    run = client_of(kernels, notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}})
    run.execute()  # an error of a cell is raised
    assert unexpected(notebook) == []


def small() -> Notebook:
    """A notebook with nothing wrong."""
    picture = {"output_type": "display_data", "data": {"image/png": "aGVyZQ==", "text/plain": "<Figure>"}}
    said = {"output_type": "stream", "name": "stdout", "text": ["  0%\r", "100%\n"]}
    code = {"cell_type": "code", "source": ["f()"], "metadata": {}, "execution_count": 1}
    title = {
        "cell_type": "markdown",
        "source": ["# Title\n", "[there](../../docs/guide/start.md), [b](b.ipynb)"],
    }
    return {"cells": [title, {**code, "outputs": [said, picture]}]}


def change(key: str, value: Any, cell: int = 1) -> Callable[[Notebook], None]:
    return lambda notebook: notebook["cells"][cell].update({key: value})


def say(text: str, name: str = "stdout") -> Callable[[Notebook], None]:
    output = {"output_type": "stream", "name": name, "text": [text]}
    return lambda notebook: notebook["cells"][1]["outputs"].append(output)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (change("execution_count", None), "not executed from the first cell to the last"),
        (change("execution_count", 2), "not executed from the first cell to the last"),
        (change("outputs", [{"output_type": "error"}]), "an error"),
        (change("outputs", []), "no picture"),
        (change("source", ["Title"], cell=0), "no title"),
        (say("ipykernel_7/1.py:3: FlatGradientWarning: all", "stderr"), "a warning: FlatGradientWarning"),
        (say("in /home/me/cvxfold"), "a place: /home/"),
        (say("lib/site-packages/torch"), "a place: site-packages"),
        (say("<Axes at 0x7f00>"), "a place:  at 0x"),
        (change("source", ["open('/tmp/x')"]), "a place: /tmp/"),
    ],
)
def test_a_fault_would_be_found(spoil: Callable[[Notebook], None], fault: str) -> None:
    notebook = small()
    assert faults(notebook) == []
    spoil(notebook)
    assert fault in faults(notebook)


def test_addresses_are_no_places() -> None:
    assert not PLACES.search("https://host.example/home/page, docs/tmp/x, a/b")


def test_a_warning_is_expected_or_found() -> None:
    notebook = small()
    assert unexpected(notebook) == []
    change("metadata", {"tags": ["warns: FlatGradientWarning"]})(notebook)
    assert unexpected(notebook) == [("f()", "FlatGradientWarning")]
    say("FlatGradientWarning: all gradients", "stderr")(notebook)
    assert unexpected(notebook) == []
    say("ConvergenceWarning: one", "stderr")(notebook)
    assert unexpected(notebook) == [("f()", "ConvergenceWarning")]


@pytest.mark.skipif(not (TOP / ".ci").exists(), reason="not in the archive of the sources")
def test_the_page_of_a_notebook_shows_it_all() -> None:
    pytest.importorskip("mkdocs")
    loader = SourceFileLoader("notebook_pages", str(TOP / ".ci" / "notebooks.py"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    hook = module_from_spec(spec)
    loader.exec_module(hook)
    page, pictures = hook.page_of(small(), "a")
    assert page == (
        "# Title\n[there](../guide/start.md), [b](b.md)\n\n[Download this notebook](a.ipynb)\n\n"
        "```python\nf()\n```\n\n```text\n100%\n```\n\n![picture 1 of the notebook](a_1.png)\n"
    )
    assert pictures == {"a_1.png": b"here"}
    seen = "[a](../../examples/notebooks/a.ipynb) [b](../examples/notebooks/b.ipynb) [c](../x.ipynb)"
    assert hook.on_page_markdown(seen) == "[a](../notebooks/a.md) [b](notebooks/b.md) [c](../x.ipynb)"
