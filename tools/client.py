"""Queue a workflow in API format on a running ComfyUI, follow it to its end, and fetch what it saved.

    python -m tools.client http://127.0.0.1:8188 workflows/api/image_to_video_small.json \\
        --image mine.png --prompt "a red star moves up" --seconds 10 --seed 7 --output videos

    done = run(host.url, edited(workflow, {("Prompt", "text"): "a red star moves up"}), on_progress=print)

With patience the client outlives its host: when the connection breaks it waits until ComfyUI answers again, and queues
the workflow again if the host has forgotten it. Finished sections then come from the host's section store. Ctrl-C
takes the run out of the host's queue, or interrupts it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from . import environment

if __name__ == "__main__":  # before an import that this Python may lack
    environment.require(environment.CLIENT)

import aiohttp

from .bar import Bar
from .follow import ANSWER, Progress, Run, reason
from .job import QueueError, Workflow, add_job, check_image, check_workflow, edited, job, read_workflow
from .outputs import Done, save

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 600.0  # seconds that the command line waits for a host that is gone


def run(
    url: str, workflow: Workflow, on_progress: Callable[[Progress], None] | None = None, patience: float = 0.0
) -> Done:
    """Queue a workflow and wait for its end. Raises QueueError with what is wrong.

    `patience` is how many seconds in a row the host may be gone; 0 gives up at once.
    """
    check_workflow(workflow)
    return asyncio.run(Run(url, workflow, on_progress or (lambda _: None), patience).run())


def upload(url: str, image: Path) -> str:
    """Send an image into the host's input folder; its name there. Raises QueueError.

    A different image of the same name stays: the host then chooses another name.
    """
    check_image(image)

    async def send() -> str:
        form = aiohttp.FormData(quote_fields=False)  # the host takes a name as it stands
        form.add_field("image", image.read_bytes(), filename=image.name.replace('"', "_"))
        async with aiohttp.ClientSession() as session, session.post(f"{url}/upload/image", data=form) as answer:
            answer.raise_for_status()
            said = await answer.json()
            return "/".join(filter(None, (said.get("subfolder"), said["name"])))

    return _asked(url, send())


def fetch(url: str, done: Done, folder: Path) -> list[Path]:
    """Copy what a run saved from the host into a folder; the files there. Raises QueueError.

    A file appears complete or not at all, under a name that was free.
    """

    async def get() -> list[Path]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER, sock_read=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return [await save(session, url, item, folder) for item in done.files]

    return _asked(url, get())


def _asked(url: str, request: Coroutine[Any, Any, T]) -> T:
    """What a request to the host gives. Raises QueueError where the host does not answer as ComfyUI does."""
    try:
        return asyncio.run(request)
    except (aiohttp.ClientError, TimeoutError) as fault:
        raise QueueError(f"ComfyUI at {url} did not answer: {reason(fault)}.") from fault


def address(text: str) -> str:
    """A host's address as typed, with its scheme."""
    return (text if "://" in text else f"http://{text}").rstrip("/")


def main() -> int:
    """Command line; prints the files' paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", type=address, help="where ComfyUI answers, such as http://127.0.0.1:8188")
    parser.add_argument("workflow", type=Path, help="in API format: workflows/api/*.json")
    add_job(parser)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that the host may be gone")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        workflow = read_workflow(args.workflow)
        image = upload(args.url, args.image) if args.image else None
        done = run(args.url, edited(workflow, job(args, image), strict=True), Bar(), args.patience)
        paths = fetch(args.url, done, args.output)
    except KeyboardInterrupt:
        sys.stderr.write("\nCancelled. ComfyUI no longer works on the run.\n")
        return 130
    except (QueueError, OSError) as fault:
        sys.stderr.write(f"\n{fault}\n")
        return 1
    sys.stdout.write("".join(f"{path}\n" for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
