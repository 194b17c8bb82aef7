"""What a release is made of: one version everywhere, and links that work on the package index."""

import re
import tomllib
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

import cvxfold
from problems.pages import DOCS, TOP, links

in_repository = pytest.mark.skipif(not (TOP / ".ci").exists(), reason="not in the archive of the sources")
URL, REVISION = "https://host.example/owner/name", "v1"


def rewriter() -> Any:
    """.ci/absolute-links as a module."""
    loader = SourceFileLoader("absolute_links", str(TOP / ".ci" / "absolute-links"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = re.search(r"^version: (.+)$", (TOP / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    bibtex = re.search(r"version = \{(.+)\}", (DOCS / "citing.md").read_text(encoding="utf-8"))
    assert citation is not None
    assert bibtex is not None
    assert {project["version"], citation[1], bibtex[1]} == {cvxfold.__version__}


@in_repository
def test_no_link_of_the_readme_is_relative_in_a_release(tmp_path: Path) -> None:
    readme, project = tmp_path / "README.md", tmp_path / "pyproject.toml"
    for copy in (readme, project):
        copy.write_bytes((TOP / copy.name).read_bytes())
    rewriter().main(URL, REVISION, str(readme), str(project))
    before, after = links(TOP / "README.md"), links(readme)
    assert len(after) == len(before)
    assert [target for target in after if not target.startswith("https://")] == []
    assert f"{URL}/blob/{REVISION}/docs/choosing.md" in after
    assert f"{URL}/actions/workflows/ci.yml/badge.svg" in after
    assert [target for target in before if target.startswith("https://") and target not in after] == []
    urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["urls"]
    assert all(target.startswith(URL) for target in urls.values())


@in_repository
def test_links_to_headings_and_pictures() -> None:
    text = "[here](#x) ![picture](docs/a.png) [![badge](../../b.svg)](../../c) [far](https://d)"
    assert rewriter().absolute(text, URL, REVISION) == (
        f"[here](#x) ![picture]({URL}/raw/{REVISION}/docs/a.png) [![badge]({URL}/b.svg)]({URL}/c) [far](https://d)"
    )
