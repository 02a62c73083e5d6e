"""Queue a workflow in API format on a running ComfyUI, and follow it to its end.

outputs = run(host.url, workflow, on_progress=print)
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

Workflow = dict[str, dict[str, Any]]


class QueueError(RuntimeError):
    """The host refused a workflow, or a node of it failed; `details` is what the host said."""

    def __init__(self, message: str, details: Any):
        super().__init__(message)
        self.details = details


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


def run(url: str, workflow: Workflow, on_progress: Callable[[Progress], None] | None = None) -> Done:
    """Queue a workflow and wait for its end. Raises QueueError with what the host says is wrong."""
    return asyncio.run(_run(url, workflow, on_progress or (lambda _: None)))


async def _run(url: str, workflow: Workflow, on_progress: Callable[[Progress], None]) -> Done:
    client = uuid.uuid4().hex
    timeout = aiohttp.ClientTimeout(total=None, connect=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.ws_connect(f"{url}/ws?clientId={client}", max_msg_size=0) as socket:
            prompt_id = await _queue(session, url, workflow, client)
            ran, kept = await _follow(socket, prompt_id, on_progress)
        return Done(prompt_id, await _outputs(session, url, prompt_id), ran, kept)


async def _outputs(session: aiohttp.ClientSession, url: str, prompt_id: str) -> dict[str, Any]:
    """What a finished run put out; the host says that it ended a moment before its history has it."""
    while True:
        async with session.get(f"{url}/history/{prompt_id}") as answer:
            history = await answer.json()
        if prompt_id in history:
            return history[prompt_id]["outputs"]
        await asyncio.sleep(0.05)


async def _queue(session: aiohttp.ClientSession, url: str, workflow: Workflow, client: str) -> str:
    async with session.post(f"{url}/prompt", json={"prompt": workflow, "client_id": client}) as answer:
        said = await answer.json()
    if answer.status != 200:
        raise QueueError(refusal(said, workflow), said)
    return said["prompt_id"]


def refusal(said: dict[str, Any], workflow: Workflow) -> str:
    """What the host has against a workflow, one line per fault."""
    lines = [said.get("error", {}).get("message", "the host refused the workflow")]
    for node, faults in (said.get("node_errors") or {}).items():
        kind = workflow.get(node, {}).get("class_type", "?")
        lines += [f"{kind} ({node}): {e['message']}: {e['details']}" for e in faults["errors"]]
    return "\n".join(lines)


async def _follow(
    socket: aiohttp.ClientWebSocketResponse, prompt_id: str, on_progress: Callable[[Progress], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ran, kept = [], []
    async for message in socket:
        if message.type != aiohttp.WSMsgType.TEXT:
            continue  # a preview picture
        event = json.loads(message.data)
        data = event.get("data", {})
        if data.get("prompt_id") != prompt_id:
            continue
        match event["type"]:
            case "progress":
                on_progress(Progress(str(data["node"]), data["value"], data["max"]))
            case "executing" if data["node"] is not None:
                ran.append(str(data["node"]))
            case "execution_cached":
                kept += map(str, data["nodes"])
            case "execution_error":
                raise QueueError(f"{data['node_type']} ({data['node_id']}): {data['exception_message'].strip()}", data)
            case "execution_interrupted":
                raise QueueError("The run was cancelled.", data)
            case "execution_success":
                return tuple(dict.fromkeys(ran)), tuple(kept)
    raise QueueError("The host closed the connection before the run ended.", None)
