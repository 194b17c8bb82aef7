"""The code blocks of a page of the documentation, as a reader would run them: one after the other."""

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run_page(name: str) -> None:
    """Run the page's Python blocks in one namespace; there must be some."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
