"""Make a video with the shipped workflow on a real ComfyUI: the main job, end to end.

python -m tools.demo [--prompt TEXT] [--image PNG] [--seconds S] [--seed N] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import time
from pathlib import Path

from .client import Done, Progress, QueueError, Workflow, run
from .host import CACHE, REPO, Host, HostError, make_base, running

log = logging.getLogger(__name__)
WORKFLOW = REPO / "workflows" / "api" / "image_to_video_small.json"
BASE = CACHE / "demo"


def edited(workflow: Workflow, values: dict[tuple[str, str], object]) -> Workflow:
    """A copy with inputs of nodes, by class or title and input name, set to other values; None leaves one as it is."""
    copy: Workflow = json.loads(json.dumps(workflow))
    for (which, name), value in values.items():
        for node in copy.values():
            if which in (node["class_type"], node.get("_meta", {}).get("title")) and value is not None:
                node["inputs"][name] = value
    return copy


def videos(host: Host, done: Done, output: Path) -> list[Path]:
    """The files that the run saved."""
    items = [item for by_kind in done.outputs.values() for item in by_kind.get("images", [])]
    return [output / item["subfolder"] / item["filename"] for item in items if item["type"] == "output"]


class Bar:
    """Progress on standard error: one line that is drawn over in a terminal, a line for each node elsewhere."""

    def __init__(self) -> None:
        self.node = ""

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        name = progress.node.rpartition(".")[2].replace("_", " ")
        filled = round(30 * progress.value / max(progress.total, 1))
        line = f"{name:<12} [{'#' * filled}{'.' * (30 - filled)}] {progress.value:g}/{progress.total:g}"
        if sys.stderr.isatty():
            sys.stderr.write(("\n" if self.node not in ("", progress.node) else "") + f"\r{line}")
        elif progress.value == progress.total:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
        self.node = progress.node


def lay_image(image: Path | None) -> str | None:
    """Copy a person's start image into the demo host's input folder; its name there."""
    if image is None:
        return None
    make_base(BASE)
    shutil.copyfile(image, BASE / "input" / image.name)
    return image.name


def main() -> int:
    """Command line; prints the video's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output", type=Path, default=REPO / "output")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the host is stopped on the way out
    workflow = edited(
        json.loads(WORKFLOW.read_text()),
        {
            ("Prompt", "text"): args.prompt,
            ("LoadImage", "image"): lay_image(args.image),
            ("EndpointPlanner", "seconds"): args.seconds,
            ("SectionSampler", "seed"): args.seed,
        },
    )
    args.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    log.info("Starting ComfyUI ...")
    with running(BASE, arguments=["--output-directory", str(args.output.resolve())]) as host:
        log.info("ComfyUI runs at %s (%.0f s); queueing %s", host.url, time.monotonic() - began, WORKFLOW.name)
        done = run(host.url, workflow, Bar())
        peak = host.peak_memory
    log.info("Done in %.0f s; ComfyUI held at most %.2f GB", time.monotonic() - began, peak / 1e9)
    for path in videos(host, done, args.output):
        sys.stdout.write(f"{path}\n")
    return 0


def _guarded() -> int:
    try:
        return main()
    except KeyboardInterrupt:
        sys.stderr.write("\nCancelled; ComfyUI is stopped.\n")
        return 130
    except (HostError, QueueError, OSError) as fault:
        sys.stderr.write(f"\n{fault}\n")
        return 1


if __name__ == "__main__":
    sys.exit(_guarded())
