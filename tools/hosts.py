"""Run the host and browser tests against any number of ComfyUI checkouts, and print a table by version.

    python -m tools.hosts DIR [DIR ...] [--tests PATH ...] [--write docs/hosts.md] [--at-once N]

Each checkout gets its own virtual environment, `.venv` inside it, from its own requirements.txt: torch, torchvision and
torchaudio in the versions chosen here, all else as stated there, and what this pack's measures need. It is made once,
and again when these change.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from .environment import python_of
from .host import REPO, HostError

log = logging.getLogger(__name__)

TORCH = "torch==2.13.0"
BESIDE = ("torchvision==0.28.0", "torchaudio==2.11.0")  # installed without what they need: it would replace torch
OWN = {"torch", "torchvision", "torchaudio"}  # chosen here, not by the checkout
TESTS = ("tests/host", "tests/browser")
BEGIN, END = "<!-- results: make test-hosts -->", "<!-- end of results -->"
WORDS = ("passed", "failed", "error", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the tests said of one host; `counts` are by test file, `faults` the tests that failed."""

    version: str
    front_end: str
    counts: dict[str, Counter[str]]
    faults: list[str]


def requirements(text: str) -> list[str]:
    """The lines of a requirements.txt that an environment is made from."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and re.split(r"[^A-Za-z0-9_-]", line)[0].lower() not in OWN]


def version_of(checkout: Path) -> str:
    """A checkout's version. Raises HostError for a folder that is no ComfyUI."""
    file = checkout / "comfyui_version.py"
    found = re.search(r'__version__ = "([^"]+)"', file.read_text("utf-8")) if file.is_file() else None
    if found is None or not (checkout / "main.py").is_file():
        raise HostError(f"{checkout} is no ComfyUI checkout; name a folder with main.py and comfyui_version.py.")
    return found[1]


def make_environment(checkout: Path) -> None:
    """Make a checkout's virtual environment, unless it is there and up to date. Raises CalledProcessError."""
    wanted = [TORCH, *BESIDE, *requirements((checkout / "requirements.txt").read_text("utf-8")), *_optional()]
    mark, python = checkout / ".venv" / "framepack-requirements.txt", python_of(checkout / ".venv")
    if mark.is_file() and mark.read_text("utf-8").splitlines() == wanted:
        return
    log.info("Installing what %s needs into %s (some minutes, once) ...", checkout, python.parent.parent)
    subprocess.run([sys.executable, "-m", "venv", checkout / ".venv"], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, "--no-deps", *BESIDE], check=True)
    subprocess.run([*pip, TORCH, *wanted[1 + len(BESIDE) :]], check=True)
    _drop_cuda_libraries(python)
    mark.write_text("\n".join(wanted), "utf-8")


def _optional() -> list[str]:
    """What FramePack Drift and GGUF files need beside a host's packages."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    return [package for use in ("metrics", "gguf") for package in project["optional-dependencies"][use]]


def _drop_cuda_libraries(python: Path) -> None:
    """Beside a CPU build of torch, leave torchaudio its Python: its compiled part needs CUDA and fails the import."""
    command = [python, "-c", "import torch; print(torch.version.cuda or '')"]
    if not subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip():
        for library in python.parent.parent.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
            library.unlink()


def test(checkout: Path, tests: Sequence[str]) -> Outcome:
    """Run tests of this pack against a checkout."""
    front_end = re.search(r"comfyui-frontend-package==(\S+)", (checkout / "requirements.txt").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow and not gpu", f"--junitxml={report}", *tests]
        own = {"COMFYUI_PATH": str(checkout), "COMFYUI_PYTHON": str(python_of(checkout / ".venv"))}
        subprocess.run(command, cwd=REPO, env=os.environ | own)
        counts, faults = read_report(report)
    version = version_of(checkout)
    return Outcome(version=version, front_end=front_end[1] if front_end else "", counts=counts, faults=faults)


def read_report(report: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts by test file, and the names of tests that failed, from pytest's JUnit file."""
    counts: dict[str, Counter[str]] = {}
    faults = []
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        tags = {child.tag for child in case}
        said = next((w for w, tag in zip(WORDS[1:], ("failure", "error", "skipped"), strict=True) if tag in tags), None)
        counts.setdefault(file, Counter())[said or "passed"] += 1
        if said in ("failed", "error"):
            faults.append(f"{file}::{case.get('name')}")
    return counts, faults


def table(outcomes: Sequence[Outcome], day: date) -> str:
    """Markdown: a row for each test file, a column for each host, and what failed."""
    heads = [f"{o.version} (front end {o.front_end or 'unknown'})" for o in outcomes]
    lines = [f"Run on {day.isoformat()}.", "", f"| tests | {' | '.join(heads)} |", "|---" * (len(outcomes) + 1) + "|"]
    for file in sorted({file for o in outcomes for file in o.counts}):
        cells = [_cell(o.counts.get(file, Counter())) for o in outcomes]
        lines.append(f"| {file} | {' | '.join(cells)} |")
    lines += ["", *(f"- {o.version}: failed: `{fault}`" for o in outcomes for fault in o.faults)]
    return "\n".join(lines).rstrip() + "\n"


def _cell(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word]) or "not run"


def write(page: Path, text: str) -> None:
    """Put a table between a page's two marks. Raises ValueError for a page without them."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if END not in rest:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", "utf-8")


def main() -> int:
    """Command line; fails where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="checkouts that are tested at the same time"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checkouts = [path.resolve() for path in args.checkouts]
    for checkout in checkouts:
        version_of(checkout)
        make_environment(checkout)
    with ThreadPoolExecutor(args.at_once) as pool:
        outcomes = list(pool.map(lambda checkout: test(checkout, args.tests), checkouts))
    text = table(outcomes, date.today())
    sys.stdout.write(text)
    if args.write:
        write(args.write, text)
    return int(any(o.faults for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
