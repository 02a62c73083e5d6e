"""Results by part: a Markdown file with a section for each, of which one is replaced at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

HEAD = "# On a GPU\n"


def write_section(file: Path, name: str, lines: Sequence[str]) -> None:
    """Put a part's lines under its heading, in place of those from an earlier run."""
    text = file.read_text("utf-8") if file.is_file() else HEAD
    sections = re.split(r"(?m)^(?=## )", text)
    new = "\n".join([f"## {name}", "", *lines, ""])
    kept = [part.rstrip() + "\n" for part in sections if part.partition("\n")[0] != f"## {name}"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*kept, new]), "utf-8")
