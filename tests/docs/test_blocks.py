"""Every block of Python in the documentation runs, page by page, and prints what the page shows.

The blocks of a page share one namespace. A comment before a block says what is not ordinary about it:
``<!-- raises: Name -->`` and ``<!-- warns: Name -->`` name what it must raise, or warn of;
``<!-- needs: package -->`` skips it, and the rest of the page, where a package is missing;
``<!-- not run: reason -->`` leaves it out. Text that follows a block is its output, or the error's name and
message, numbers to a percent; ``<!-- varies -->`` is said of output whose numbers are times or roundings.
"""

import gc
import re
import sys
import types
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from problems.marks import long
from problems.pages import TOP, Block, blocks, name_of, pages

LONG = {"README.md", "docs/analyze.md", "docs/guide/logging.md", "docs/jax.md"}
"""Pages whose blocks take long."""

LEFT_OUT = 1
"""So many blocks may be left out in all."""

WITH_PYTHON = [page for page in pages() if any(block.language == "python" for block in blocks(page))]


NUMBER = re.compile(r"-?(?:\b\d[\d,]*\.?\d*(?:e[+-]?\d+)?\b|\binf\b|\bnan\b)|(?<=\s)-(?=\s|$)")
"""Also the stroke that stands for a number that is not known."""


def words(text: str) -> str:
    """Output without its numbers, its spaces, the lengths of lines and the engine's name."""
    plain = re.sub(r"([━─])+", r"\1", NUMBER.sub("#", text))
    return re.sub(r"\s+", " ", re.sub(r"\b(lanes|tensors)\b", "engine", plain)).strip()


def numbers(text: str) -> list[float]:
    found = [match.replace(",", "") for match in NUMBER.findall(text)]
    return [float("nan") if match == "-" else float(match) for match in found]


def check_output(block: Block, printed: str) -> None:
    assert block.output is not None
    assert words(printed) == words(block.output), printed
    if "varies" not in block.notes:
        assert numbers(printed) == pytest.approx(numbers(block.output), rel=0.01, abs=1e-9, nan_ok=True)


def names(listed: str | None) -> set[str]:
    return set() if listed is None else set(listed.split(", "))


def of_ours(caught: list[warnings.WarningMessage]) -> set[str]:
    """The kinds of warnings that cvxfold gave."""
    kinds = {one.category for one in caught}
    ours = {kind.__name__ for kind in kinds if kind.__module__.startswith("cvxfold")}
    said = any(one.category is UserWarning and "solver_args" in str(one.message) for one in caught)
    return ours | ({"UserWarning"} if said else set())


def run(block: Block, page: Path, namespace: dict[str, object]) -> None:
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    raised, printed = None, StringIO()
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(printed):
        warnings.simplefilter("always")
        try:
            exec(code, namespace)
        except Exception as error:
            if "raises" not in block.notes:
                raise
            raised = type(error).__name__
            print(f"{raised}: {error}", file=printed)
    assert raised == block.notes.get("raises")
    assert of_ours(caught) == names(block.notes.get("warns")), [str(one.message) for one in caught]
    if block.output is not None:
        check_output(block, printed.getvalue())


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[long] if name_of(page) in LONG else [])
        for page in WITH_PYTHON
    ],
)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    torch.manual_seed(0)
    for block in blocks(page):
        if block.language != "python" or "not run" in block.notes:
            continue
        for package in names(block.notes.get("needs")):
            pytest.importorskip(package)
        run(block, page, module.__dict__)
    module.__dict__.clear()
    gc.collect()  # pools that cvxpylayers leaves open would warn in another test


def test_pages_leave_one_thread() -> None:
    """One of them sets more, which the rest of the tests would spin with."""
    assert torch.get_num_threads() == 1


def test_few_blocks_are_left_out() -> None:
    left_out = [
        (name_of(page), block.line)
        for page in pages()
        for block in blocks(page)
        if block.language == "python" and "not run" in block.notes
    ]
    assert len(left_out) <= LEFT_OUT, left_out


def block_of(tmp_path: Path, text: str) -> Block:
    page = tmp_path / "page.md"
    page.write_text(text)
    return blocks(page)[0]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint('two')\n```\n\n```text\nthree\n```",
        "```python\nprint([0.5, 2.0])\n```\n\n```text\n[0.5, 2.1]\n```",
        "<!-- varies -->\n```python\nprint('1 s')\n```\n\n```text\n1 kg\n```",
        "<!-- raises: ValueError -->\n```python\nprint(1)\n```",
        "<!-- raises: ValueError -->\n```python\nraise ValueError('a')\n```\n\n```text\nValueError: b\n```",
        "<!-- warns: FlatGradientWarning -->\n```python\nprint(1)\n```",
        "```python\nimport warnings, cvxfold\nwarnings.warn('!', cvxfold.ConvergenceWarning)\n```",
    ],
)
def test_a_page_that_is_not_so_would_be_found(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(block_of(tmp_path, text), TOP, {})


def test_output_that_varies_may_differ_in_numbers(tmp_path: Path) -> None:
    block = block_of(
        tmp_path, "<!-- varies -->\n```python\nprint('1.5e-13 of', 2)\n```\n\n```text\n7.1e-09   of 30\n```"
    )
    run(block, TOP, {})
