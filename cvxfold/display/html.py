"""Tables as HTML for notebooks.

Styles are inline and colours inherited or half transparent, so that a table suits a light theme and a dark
one.
Text is escaped unless it is :class:`Markup`, which this module makes.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Literal

Level = Literal["plain", "good", "doubtful", "bad"]
"""How much something is to stand out."""

_TINTS: dict[Level, str] = {"good": "0,140,110", "doubtful": "222,150,0", "bad": "220,60,60"}
_BLOCK = "color:inherit;margin:.4em 0;line-height:1.5"
_TABLE = "border-collapse:collapse;border:none;margin:.2em 0 .5em 0;color:inherit;background:transparent"
_ROW = "background:transparent;border:none"
_CELL = "border:none;padding:.1em .9em .1em 0;color:inherit;background:transparent;text-align:"
_NUMBER = ";font-variant-numeric:tabular-nums;white-space:nowrap"
_HEADING = ";font-weight:600;border-bottom:1px solid rgba(128,128,128,.6)"


class Markup(str):
    """HTML that needs no escaping."""

    __slots__ = ()


def marked(text: str) -> Markup:
    """Text as HTML: escaped, unless it is so already."""
    return text if isinstance(text, Markup) else Markup(escape(text))


def badge(text: str, level: Level) -> Markup:
    """A word that stands out: bold on a tinted ground; plain text where the level is plain."""
    if level == "plain":
        return marked(text)
    tint = _TINTS[level]
    style = (
        f"display:inline-block;padding:0 .45em;border-radius:.3em;white-space:nowrap;"
        f"background:rgba({tint},.22);border:1px solid rgba({tint},.75)"
    )
    weight = "" if level == "good" else ";font-weight:600"
    return Markup(f'<span style="{style}{weight}">{marked(text)}</span>')


def joined(parts: Iterable[str], by: str = " ") -> Markup:
    """Some texts in a line."""
    return Markup(marked(by).join(map(marked, parts)))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table whose first column is on the left and names the rows; without headings if these are empty."""
    head = f"<thead>{_line('th', headings, _HEADING)}</thead>" if headings else ""
    body = "".join(_line("td", row, _NUMBER) for row in rows)
    return Markup(f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>')


def listing(entries: Mapping[str, str]) -> Markup:
    """Names and what stands beside them, all on the left."""
    rows = "".join(
        f'<tr style="{_ROW}"><td style="{_CELL}left;opacity:.75;vertical-align:top;white-space:nowrap">'
        f'{marked(name)}</td><td style="{_CELL}left">{marked(value)}</td></tr>'
        for name, value in entries.items()
    )
    return Markup(f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>')


def title(text: str) -> Markup:
    """A line above a table."""
    return Markup(f'<div style="color:inherit"><b>{marked(text)}</b></div>')


def line(text: str) -> Markup:
    """A paragraph."""
    return Markup(f'<div style="color:inherit;max-width:60em;margin:.2em 0">{marked(text)}</div>')


def folded_away(summary: str, text: str) -> Markup:
    """What is shown when somebody clicks on the summary."""
    return Markup(
        f'<details style="color:inherit"><summary>{marked(summary)}</summary>{line(text)}</details>'
    )


def block(*parts: str) -> Markup:
    """All there is to show, as a notebook takes it from ``_repr_html_``."""
    return Markup(f'<div style="{_BLOCK}">{"".join(map(marked, parts))}</div>')


def _line(tag: str, cells: Sequence[str], style: str) -> str:
    sides = ("left", *("right" for _ in cells[1:]))
    shown = "".join(
        f'<{tag} style="{_CELL}{side}{style}">{marked(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    )
    return f'<tr style="{_ROW}">{shown}</tr>'
