"""Links and figures of the documentation: files and headings that exist, and a site that holds every page."""

import importlib
import re
from pathlib import Path

import pytest

import cvxfold.studies.analysis
import cvxfold.studies.comparison
import cvxfold.torch
from cvxfold.layer.options import OPTIONS
from cvxfold.layer.solver_args import _FORWARD, _MEANINGLESS, _OF_OTHER_SOLVERS
from problems.pages import AT_TOP, DOCS, TOP, anchors, blocks, links, name_of, pages, slug

MADE = {DOCS / name.lower(): TOP / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")}
MADE |= {
    DOCS / "notebooks" / f"{path.stem}.md": path
    for path in sorted((TOP / "examples" / "notebooks").glob("*.ipynb"))
}
"""Pages of the site that .ci/pages.py and .ci/notebooks.py make, and of what."""


def problem_of(page: Path, target: str) -> str | None:
    """What is wrong with a link; None if nothing is."""
    if re.match(r"https?://|mailto:", target) or target.startswith("../../actions/"):
        return None  # elsewhere, or the code host's own page beside the repository
    path, _, anchor = target.partition("#")
    aim = (page.parent / path).resolve() if path else page
    aim = MADE.get(aim, aim)
    if not aim.exists():
        return f"{target}: no such file"
    if page.is_relative_to(DOCS) and not path.startswith("http") and TOP / "docs" not in [*aim.parents]:
        return None if aim in MADE.values() else f"{target}: outside of the site"
    if anchor and anchor not in anchors(aim):
        return f"{target}: no such heading"
    return None


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    found = [problem_of(page, target) for target in links(page)]
    assert [one for one in found if one is not None] == []


def test_a_broken_link_would_be_found() -> None:
    page = DOCS / "index.md"
    assert problem_of(page, "nowhere.md") is not None
    assert problem_of(page, "choosing.md#nowhere") is not None
    assert problem_of(page, "choosing.md#the-report") is None
    assert problem_of(page, "../pyproject.toml") is not None


def test_slugs_are_those_of_code_hosts() -> None:
    assert slug("`x ≥ 0`: who's right?") == "x--0-whos-right"


def test_figures_are_used() -> None:
    used = {(page.parent / target).resolve() for page in pages() for target in links(page)}
    kept = {figure for figure in DOCS.rglob("*.png") if figure.is_file()}
    assert kept
    assert kept - used == set()


def test_the_site_holds_every_page() -> None:
    text = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"([\w/]+\.md)$", text, flags=re.MULTILINE))
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert listed == there | {made.relative_to(DOCS).as_posix() for made in MADE}


def test_pages_begin_with_their_title() -> None:
    assert [name_of(page) for page in pages() if not page.read_text(encoding="utf-8").startswith("# ")] == []


def test_no_page_names_a_block_without_a_language() -> None:
    """Of what is new: a block that names none is neither run nor compared."""
    new = [page for page in pages() if {"guide", "api"} & {page.parent.name}]
    assert new
    assert [(name_of(page), block.line) for page in new for block in blocks(page) if not block.language] == []


def test_options_and_their_defaults_are_those_of_the_table() -> None:
    text, _, _ = (DOCS / "api" / "options.md").read_text(encoding="utf-8").partition("\n## ")
    assert dict(re.findall(r"^\| `(\w+)` \| `(.+)` \|$", text, flags=re.MULTILINE)) == {
        name: repr(option.default) for name, option in OPTIONS.items()
    }


def test_names_of_solver_args_are_all_there() -> None:
    text = (DOCS / "api" / "options.md").read_text(encoding="utf-8")
    _, _, text = text.partition("## Names of solver_args")
    known = {*_FORWARD, *_MEANINGLESS, *_OF_OTHER_SOLVERS, "solve_method"}
    assert [name for name in sorted(known) if f"`{name}`" not in text] == []


def test_everything_public_is_in_the_reference() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted((DOCS / "api").glob("*.md")))
    whole = ("cvxfold.errors", "cvxfold.fold.updates", "cvxfold.fold.projections")
    assert [name for name in whole if f"::: {name}\n" not in text] == []
    shown = set(re.findall(r"^::: [\w.]*\b(\w+)$", text, flags=re.MULTILINE))
    shown |= {name for module in whole for name in vars(importlib.import_module(module))}
    public = {*cvxfold.__all__, *cvxfold.torch.__all__, *importlib.import_module("cvxfold.fold").__all__}
    public |= {*cvxfold.studies.analysis.__all__, *cvxfold.studies.comparison.__all__}
    assert public - shown == {"__version__", "METHODS"}


def test_pages_at_the_top_exist() -> None:
    assert [name for name in AT_TOP if not (TOP / name).exists()] == []
