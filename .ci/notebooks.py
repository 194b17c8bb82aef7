"""A hook of mkdocs: the executed notebooks of the examples are pages of the site."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = "examples/notebooks"
"""Where the notebooks are; on the site they are in ``notebooks``."""

_LINK = re.compile(rf"\]\(((?:\.\./)*)\.\./{FOLDER}/(\w+)\.ipynb\)")
"""From a page of the documentation to a notebook."""


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add a page for each notebook, its pictures, and the notebook itself to be downloaded."""
    for path in sorted((Path(config.config_file_path).parent / FOLDER).glob("*.ipynb")):
        page, pictures = page_of(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks lead to their pages."""
    return _LINK.sub(r"](\1notebooks/\2.md)", markdown)


def page_of(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook of the format's version 4 as a page, and its pictures by their names."""
    parts, pictures = [], dict[str, bytes]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_from_the_site(source))
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            parts += [part for output in cell["outputs"] if (part := _shown(output, name, pictures))]
    download = f"[Download this notebook]({name}.ipynb)"
    return "\n\n".join([parts[0], download, *parts[1:]]) + "\n", pictures


def _from_the_site(text: str) -> str:
    """Links as seen from the folder of the notebooks' pages."""
    text = re.sub(r"\]\(\.\./\.\./docs/", "](../", text)
    return re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)


def _shown(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    """An output of a cell: a picture, which is added to ``pictures``, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        file = f"{name}_{len(pictures) + 1}.png"
        pictures[file] = base64.b64decode("".join(data["image/png"]))
        return f"![picture {len(pictures)} of the notebook]({file})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    lines = [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]  # of a progress bar the end
    return "```text\n" + "\n".join(lines) + "\n```" if text.strip() else ""
