"""One run on a host: queued, followed by its events, found again after a break, withdrawn when cancelled."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .job import QueueError, Workflow
from .outputs import Done

log = logging.getLogger(__name__)

ANSWER = 30.0  # seconds for the answer to a request
HEARTBEAT = 60.0  # seconds between the pings that a host must answer while a run is followed
PAUSES = (1.0, 2.0, 5.0)  # seconds before each new attempt; the last one repeats
RECORD = 10.0  # seconds for a finished run to appear in the host's history
# What breaks a connection. ValueError: an answer that is not JSON, or an address that is none.
BREAKS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class _LostError(Exception):
    """The connection broke before the run ended."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A node's work so far: `value` of `total` steps of the node `node` (its id; a child's has dots)."""

    node: str
    value: float
    total: float


@dataclass(slots=True)
class Run:
    """One run, over as many connections as it takes."""

    url: str
    workflow: Workflow
    on_progress: Callable[[Progress], None]
    patience: float
    client_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    prompt_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    queued: bool = False
    ran: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    heard: float = 0.0  # when the host was last known to work on the run, by time.monotonic

    async def run(self) -> Done:
        """Queue, follow, and withdraw where this task is cancelled. Raises QueueError."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            await self.greet(session)
            try:
                return await self.attempts(session)
            except asyncio.CancelledError:  # Ctrl-C
                with suppress(*BREAKS):
                    await self.withdraw(session)
                raise

    async def greet(self, session: aiohttp.ClientSession) -> None:
        """Raises QueueError where no ComfyUI answers at the address."""
        try:
            stats = await self.get(session, "system_stats")
            if "system" not in stats:
                raise ValueError("it answers, but is not ComfyUI")
        except BREAKS as fault:
            raise QueueError(
                f"No ComfyUI answers at {self.url}: {reason(fault)}. Start ComfyUI, or correct the address."
            ) from fault

    async def attempts(self, session: aiohttp.ClientSession) -> Done:
        """Attempt after attempt until the run ends, or the host has been gone for longer than patience."""
        self.heard, said, pauses = time.monotonic(), 0.0, iter(PAUSES)
        while True:
            try:
                return await self.attempt(session)
            except (_LostError, *BREAKS) as broken:
                fault = broken
            if self.left() <= 0:
                raise self.gone(fault) from fault
            if self.heard > said:  # the first break since then
                log.info("ComfyUI is gone; waiting for it to come back ...")
                said, pauses = time.monotonic(), iter(PAUSES)
            await asyncio.sleep(min(next(pauses, PAUSES[-1]), self.left()))

    def left(self) -> float:
        """Seconds of patience that are left."""
        return self.heard + self.patience - time.monotonic()

    def limit(self) -> asyncio.Timeout:
        """The time for one request: one deadline covers all attempts."""
        return asyncio.timeout(min(ANSWER, max(self.left(), 1.0)) if self.patience else ANSWER)

    def gone(self, fault: BaseException) -> QueueError:
        """The error of a host that does not come back."""
        if not self.patience:
            return QueueError(f"ComfyUI at {self.url} closed the connection before the run ended: {reason(fault)}.")
        return QueueError(
            f"ComfyUI at {self.url} did not come back within {self.patience:g} s: {reason(fault)}. Queue the workflow "
            "again later."
        )

    async def attempt(self, session: aiohttp.ClientSession) -> Done:
        """Queue, unless the host still knows the run, and follow it."""
        beat = min(HEARTBEAT, max(self.patience / 2, 1.0)) if self.patience else HEARTBEAT
        async with self.limit():
            connection = await session.ws_connect(
                f"{self.url}/ws?clientId={self.client_id}", max_msg_size=0, heartbeat=beat
            )
        async with connection as socket:
            if not self.queued or not await self.known(session):
                await self.queue(session)
                await self.follow(socket)
            elif self.prompt_id not in await self.get(session, f"history/{self.prompt_id}"):
                await self.follow(socket)
        outputs = await self.outputs(session)
        return Done(self.prompt_id, outputs, tuple(dict.fromkeys(self.ran)), tuple(self.kept))

    async def known(self, session: aiohttp.ClientSession) -> bool:
        """Does the host have the run in its queue or its history?"""
        if self.prompt_id in await self.get(session, f"history/{self.prompt_id}"):
            return True
        queue = await self.get(session, "queue")
        return any(item[1] == self.prompt_id for items in queue.values() for item in items)

    async def queue(self, session: aiohttp.ClientSession) -> None:
        """Queue the workflow under an id of ours, so that it can be found again where the answer is lost."""
        self.queued = True
        body = {"prompt": self.workflow, "client_id": self.client_id, "prompt_id": self.prompt_id}
        async with self.limit(), session.post(f"{self.url}/prompt", json=body) as answer:
            if answer.status >= 500:
                answer.raise_for_status()
            said = await answer.json(content_type=None)
        if answer.status != 200:
            raise QueueError(refusal(said, self.workflow), said)
        self.prompt_id = said["prompt_id"]

    async def withdraw(self, session: aiohttp.ClientSession) -> None:
        """Take the run out of the host's queue, or interrupt it where it runs."""
        if not self.queued:
            return
        async with self.limit(), session.post(f"{self.url}/queue", json={"delete": [self.prompt_id]}):
            pass
        running = (await self.get(session, "queue"))["queue_running"]
        if any(item[1] == self.prompt_id for item in running):
            async with self.limit(), session.post(f"{self.url}/interrupt", json={"prompt_id": self.prompt_id}):
                pass

    async def follow(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read the host's events until the run ends."""
        began = time.monotonic()
        async for message in socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # a preview picture
            event = json.loads(message.data)
            data = event.get("data", {})
            if data.get("prompt_id") != self.prompt_id:
                continue
            self.heard = time.monotonic()
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
        if time.monotonic() - began > 2 * HEARTBEAT:  # it answered pings while the run waited
            self.heard = time.monotonic()
        raise _LostError("it closed the connection")

    async def outputs(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """What a finished run put out; the host says that it ended a moment before its history has it."""
        for _ in range(int(RECORD / 0.05)):
            history = await self.get(session, f"history/{self.prompt_id}")
            if self.prompt_id in history:
                for kind, data in history[self.prompt_id].get("status", {}).get("messages", []):
                    if kind in ("execution_error", "execution_interrupted"):
                        raise failure(kind, data)
                return history[self.prompt_id]["outputs"]
            await asyncio.sleep(0.05)
        raise QueueError("The run ended, but the host's history does not list it. Look in its output folder.")

    async def get(self, session: aiohttp.ClientSession, path: str) -> Any:
        """GET a path's JSON."""
        async with self.limit(), session.get(f"{self.url}/{path}") as answer:
            answer.raise_for_status()
            return await answer.json()


def reason(fault: BaseException) -> str:
    """Why a request failed, in a few words."""
    if isinstance(fault, aiohttp.ClientResponseError):
        return f"HTTP status {fault.status}"
    if isinstance(fault, TimeoutError):
        return "no answer in time"
    return str(fault).rstrip(".") or type(fault).__name__


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
