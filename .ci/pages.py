"""A hook of mkdocs: files at the top of the repository that are pages of the site too."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""The files, and the pages that they become."""


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages, with links as seen from the folder of the documentation."""
    top = Path(config.config_file_path).parent

    def titled(link: re.Match[str]) -> str:
        """A link that shows a file's name shows its title."""
        title = (top / link[1]).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        return f"[{title}]({link[1]})"

    for source, page in PAGES.items():
        text = re.sub(r"\[(docs/[\w/]+\.md)\]\(\1\)", titled, (top / source).read_text(encoding="utf-8"))
        text = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, page, content=text))
    return files
