"""Queue a workflow in API format on a running ComfyUI, follow it to its end, and fetch what it made.

    python -m tools.client http://127.0.0.1:8188 workflows/api/image_to_video_small.json \\
        --image mine.png --prompt "a red star moves up" --seconds 10 --seed 7 --output videos

    done = run(host.url, edited(workflow, {("Prompt", "text"): "a red star moves up"}), on_progress=print)

With patience the client outlives its host: when the connection breaks it polls until ComfyUI answers again, and queues
the workflow anew where the host has forgotten it. Sections that were finished are then taken from the host's store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

log = logging.getLogger(__name__)

Workflow = dict[str, dict[str, Any]]

# What a person changes most often: the node, by class or title, and its input.
JOB = {
    "prompt": ("Prompt", "text"),
    "image": ("LoadImage", "image"),
    "seconds": ("EndpointPlanner", "seconds"),
    "schedule": ("PackHistory", "schedule"),
    "seed": ("SectionSampler", "seed"),
}
POLL = 1.0  # seconds
PATIENCE = 600.0  # seconds that the command line waits for a host that is gone


class QueueError(RuntimeError):
    """The host refused a workflow, or a node of it failed; `details` is what the host said."""

    def __init__(self, message: str, details: Any = None):
        super().__init__(message)
        self.details = details


class _LostError(Exception):
    """The connection broke before the run ended."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A node's work so far: `value` of `total` steps of the node `node` (its id; a child's has dots)."""

    node: str
    value: float
    total: float


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run: the history's outputs by node id, the nodes that ran, and those that were kept from before."""

    prompt_id: str
    outputs: dict[str, Any]
    ran: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def files(self) -> list[dict[str, str]]:
        """What it saved: filename, subfolder and type of each."""
        items = [item for by_kind in self.outputs.values() for item in by_kind.get("images", [])]
        return [item for item in items if item["type"] == "output"]


def edited(workflow: Workflow, values: dict[tuple[str, str], object], strict: bool = False) -> Workflow:
    """A copy with inputs of nodes, by class or title and input name, set to other values; None leaves one as it is.

    `strict` raises QueueError where no node has the class or title.
    """
    copy: Workflow = json.loads(json.dumps(workflow))
    for (which, name), value in values.items():
        found = [n for n in copy.values() if which in (n["class_type"], n.get("_meta", {}).get("title"))]
        if strict and value is not None and not found:
            raise QueueError(f"The workflow has no node {which!r}, so its {name} cannot be set.")
        for node in found if value is not None else []:
            node["inputs"][name] = value
    return copy


def run(
    url: str, workflow: Workflow, on_progress: Callable[[Progress], None] | None = None, patience: float = 0.0
) -> Done:
    """Queue a workflow and wait for its end. Raises QueueError with what the host says is wrong.

    `patience` is how many seconds a host may be gone before the run is given up.
    """
    return asyncio.run(_Client(url, workflow, on_progress or (lambda _: None), patience).run())


def check_image(path: Path) -> None:
    """Raises QueueError where a file is not there or no picture."""
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError) as fault:  # Pillow's, for a broken file
        why = "is not there" if not path.exists() else "is no picture that can be read"
        raise QueueError(f"the image {path} {why}; name a PNG, JPEG or WebP file") from fault


def upload(url: str, image: Path) -> str:
    """Send an image into the host's input folder; its name there. Raises QueueError."""
    check_image(image)

    async def send() -> str:
        form = aiohttp.FormData()
        form.add_field("image", image.read_bytes(), filename=image.name)
        form.add_field("overwrite", "true")
        async with aiohttp.ClientSession() as session, session.post(f"{url}/upload/image", data=form) as answer:
            answer.raise_for_status()
            return (await answer.json())["name"]

    return asyncio.run(send())


def fetch(url: str, done: Done, folder: Path) -> list[Path]:
    """Copy what a run saved from the host into a folder; the files there."""

    async def get() -> list[Path]:
        paths = []
        async with aiohttp.ClientSession() as session:
            for item in done.files:
                async with session.get(f"{url}/view", params=item) as answer:
                    answer.raise_for_status()
                    paths.append(folder / Path(item["filename"]).name)
                    paths[-1].write_bytes(await answer.read())
        return paths

    folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(get())


@dataclass(slots=True)
class _Client:
    """One run, over as many connections as it takes."""

    url: str
    workflow: Workflow
    on_progress: Callable[[Progress], None]
    patience: float
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    prompt_id: str = ""
    ran: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    async def run(self) -> Done:
        timeout = aiohttp.ClientTimeout(total=None, connect=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    return await self.once(session)
                except (_LostError, aiohttp.ClientError, OSError) as fault:
                    if not self.patience:
                        raise QueueError("The host closed the connection before the run ended.") from fault
                log.info("ComfyUI is gone; waiting for it to come back ...")
                await self.wait_for_host(session)

    async def once(self, session: aiohttp.ClientSession) -> Done:
        """Queue, unless the host still knows the run, and follow it."""
        async with session.ws_connect(f"{self.url}/ws?clientId={self.name}", max_msg_size=0) as socket:
            if not self.prompt_id or not await self.known(session):
                self.prompt_id = await self.queue(session)
                await self.follow(socket)
            elif self.prompt_id not in await self.get(session, f"history/{self.prompt_id}"):
                await self.follow(socket)
        outputs = await self.outputs(session)
        return Done(self.prompt_id, outputs, tuple(dict.fromkeys(self.ran)), tuple(self.kept))

    async def wait_for_host(self, session: aiohttp.ClientSession) -> None:
        """Poll until the host answers. Raises QueueError when patience ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        while loop.time() < deadline:
            try:
                await self.get(session, "system_stats")
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(POLL)
            else:
                return
        raise QueueError(f"ComfyUI did not come back within {self.patience:g} s; queue the workflow again later.")

    async def known(self, session: aiohttp.ClientSession) -> bool:
        """Does the host have the run in its queue or its history?"""
        if self.prompt_id in await self.get(session, f"history/{self.prompt_id}"):
            return True
        queue = await self.get(session, "queue")
        return any(item[1] == self.prompt_id for items in queue.values() for item in items)

    async def queue(self, session: aiohttp.ClientSession) -> str:
        body = {"prompt": self.workflow, "client_id": self.name}
        async with session.post(f"{self.url}/prompt", json=body) as answer:
            said = await answer.json()
        if answer.status != 200:
            raise QueueError(refusal(said, self.workflow), said)
        return said["prompt_id"]

    async def follow(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read the host's events until the run ends."""
        async for message in socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # a preview picture
            event = json.loads(message.data)
            data = event.get("data", {})
            if data.get("prompt_id") != self.prompt_id:
                continue
            match event["type"]:
                case "progress":
                    self.on_progress(Progress(str(data["node"]), data["value"], data["max"]))
                case "executing" if data["node"] is not None:
                    self.ran.append(str(data["node"]))
                case "execution_cached":
                    self.kept += map(str, data["nodes"])
                case "execution_error" | "execution_interrupted":
                    raise failure(event["type"], data)
                case "execution_success":
                    return
        raise _LostError

    async def outputs(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """What a finished run put out; the host says that it ended a moment before its history has it."""
        while True:
            history = await self.get(session, f"history/{self.prompt_id}")
            if self.prompt_id in history:
                for kind, data in history[self.prompt_id].get("status", {}).get("messages", []):
                    if kind in ("execution_error", "execution_interrupted"):
                        raise failure(kind, data)
                return history[self.prompt_id]["outputs"]
            await asyncio.sleep(0.05)

    async def get(self, session: aiohttp.ClientSession, path: str) -> Any:
        async with session.get(f"{self.url}/{path}") as answer:
            return await answer.json()


def failure(kind: str, data: dict[str, Any]) -> QueueError:
    """The error of a run that did not end well."""
    if kind == "execution_interrupted":
        return QueueError("The run was cancelled.", data)
    return QueueError(f"{data['node_type']} ({data['node_id']}): {data['exception_message'].strip()}", data)


def refusal(said: dict[str, Any], workflow: Workflow) -> str:
    """What the host has against a workflow, one line per fault."""
    lines = [said.get("error", {}).get("message", "the host refused the workflow")]
    for node, faults in (said.get("node_errors") or {}).items():
        kind = workflow.get(node, {}).get("class_type", "?")
        lines += [f"{kind} ({node}): {e['message']}: {e['details']}" for e in faults["errors"]]
    return "\n".join(lines)


class Bar:
    """Progress on standard error: one line that is drawn over in a terminal, a line for each tenth elsewhere."""

    def __init__(self) -> None:
        self.shown: tuple[str, int] = ("", 0)

    def __call__(self, progress: Progress) -> None:
        """Show it."""
        name = progress.node.rpartition(".")[2].replace("_", " ")
        share = progress.value / max(progress.total, 1)
        line = f"{name:<12} [{'#' * round(30 * share):.<30}] {progress.value:g}/{progress.total:g}"
        now = (progress.node, int(10 * share))
        if sys.stderr.isatty():
            sys.stderr.write(("\n" if self.shown[0] not in ("", progress.node) else "") + f"\r{line}")
        elif now != self.shown:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
        self.shown = now


def add_job(parser: argparse.ArgumentParser) -> None:
    """What a person changes of a workflow, as options of a command line."""
    parser.add_argument("--prompt", help="what happens")
    parser.add_argument("--image", type=Path, help="the start image")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--schedule", help="such as f1k1_x_g9_f1k1f2k2f16k4_td, or inverted, forward, endpoint")
    parser.add_argument("--seed", type=int)


def job(args: argparse.Namespace, image: str | None) -> dict[tuple[str, str], object]:
    """The options as changes of a workflow; `image` is the start image's name in the host's input folder."""
    return {JOB[name]: image if name == "image" else getattr(args, name) for name in JOB}


def main() -> int:
    """Command line; prints the files' paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where ComfyUI answers, such as http://127.0.0.1:8188")
    parser.add_argument("workflow", type=Path, help="in API format: workflows/api/*.json")
    add_job(parser)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds that the host may be gone")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    url = args.url.rstrip("/")
    try:
        image = upload(url, args.image) if args.image else None
        done = run(
            url, edited(json.loads(args.workflow.read_text()), job(args, image), strict=True), Bar(), args.patience
        )
        paths = fetch(url, done, args.output)
    except (QueueError, aiohttp.ClientError, OSError, ValueError) as fault:
        sys.stderr.write(f"\n{fault}\n")
        return 1
    sys.stdout.write("".join(f"{path}\n" for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
