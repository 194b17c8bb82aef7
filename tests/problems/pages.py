"""The pages of the documentation, taken apart: fenced blocks with what is said of them, headings, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
AT_TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")

_NOTE = re.compile(r"<!-- (needs|not run|raises|varies|warns)(?:: (.+))? -->")
_HEADING = re.compile(r"(#+) +(.*?)(?: *\{ *#([\w-]+) *\})?$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_IMAGE_IN_LINK = re.compile(r"\[(!\[[^\]]*\]\([^)\s]+\))\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Args:
        line: of its first line of code, counted from 1.
        language: after the fence.
        code: without the fences.
        notes: what comments before the fence say of it, by ``needs``, ``not run``, ``raises``, ``varies`` and
            ``warns``.
        output: the text block that follows it; None where another kind of block or other text does.
    """

    line: int
    language: str
    code: str
    notes: dict[str, str] = field(default_factory=dict)
    output: str | None = None


def pages() -> list[Path]:
    """Every page, those at the top of the repository too."""
    return [TOP / name for name in AT_TOP] + sorted(DOCS.rglob("*.md"))


def name_of(page: Path) -> str:
    """A page by its path in the repository."""
    return page.relative_to(TOP).as_posix()


@cache
def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    adjacent = False  # only blank lines since the last block
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if line.startswith("```"):
            language = line[3:].strip()
            code = "\n".join(_until_the_fence(lines))
            if language == "text" and adjacent and found[-1].language == "python":
                last = found.pop()
                found.append(Block(last.line, last.language, last.code, last.notes, code))
            else:
                found.append(Block(number + 1, language, code, notes))
            notes, adjacent = {}, True
        elif note := _NOTE.fullmatch(line.strip()):
            notes = {**notes, note[1]: note[2] or ""}
            adjacent = False
        elif line.strip():
            notes, adjacent = {}, False
    return found


def _until_the_fence(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line.startswith("```"):
            return
        yield line
    raise ValueError("a fence is not closed")


@cache
def prose(page: Path) -> str:
    """A page without its fenced blocks and its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link to a heading of the page may name."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = [_HEADING.fullmatch(line.rstrip()) for line in text.splitlines()]
    return frozenset(heading[3] or slug(heading[2]) for heading in headings if heading)


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts and ``pymdownx.slugs`` make it."""
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def links(page: Path) -> list[str]:
    """The targets of the links and images of a page."""
    text = prose(page)
    nested = [target for match in _IMAGE_IN_LINK.finditer(text) for target in match.groups()[1:]]
    return nested + _LINK.findall(text)
