"""The examples of docs/extending.md: each change applies to the sources, and the code under it runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.host import REPO

EXAMPLE = re.compile(r"^## (.+?)$.*?^```diff\n(.*?)^```$.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = {name: (diff, code) for name, diff, code in EXAMPLE.findall((REPO / "docs" / "extending.md").read_text())}


def apply(diff: str, folder: Path) -> None:
    """Apply a unified diff whose hunks are found by their lines, wherever these are."""
    for change in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        old, new, *hunks = re.split(r"^\+\+\+ b/(\S+)\n|^@@.*\n", change, flags=re.MULTILINE)
        path = folder / new
        text = "" if old.strip() == "/dev/null" else path.read_text()
        for hunk in filter(None, hunks):
            lines = hunk.splitlines()
            before, after = ("\n".join(line[1:] for line in lines if line[:1] in (kind, " ", "")) for kind in "-+")
            assert text.count(before) == 1 or not text, f"{new} has not exactly one place for:\n{before}"
            text = text.replace(before, after) if text else after + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_applies_and_runs(name: str, tmp_path: Path):
    diff, code = EXAMPLES[name]
    for path in REPO.glob("framepack/**/*.py"):
        target = tmp_path / path.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    apply(diff, tmp_path)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_every_kind_of_part_has_an_example():
    assert EXAMPLES.keys() >= {
        *("A tail", "An order of generation", "An importance strategy", "A solver", "A backbone"),
    }
