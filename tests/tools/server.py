"""A small server with the part of ComfyUI's protocol that the client uses, for failures that are rare on a host."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORKFLOW = {"1": {"class_type": "Anything", "inputs": {}}}


@dataclass(slots=True)
class Server:
    """What it does, and what it was asked.

    `ends`: runs end at once. `freezes`: with a run queued, nothing is answered until this event. `socket_status`:
    websockets are refused.
    """

    ends: bool = True
    freezes: threading.Event | None = None
    socket_status: int = 0
    outputs: list[dict[str, str]] = field(default_factory=list)
    view: bytes | None = b"video"  # None: the connection breaks halfway
    asked: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)
    url: str = ""

    async def system_stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {}})

    async def ws(self, request: web.Request) -> web.StreamResponse:
        self.asked.append("ws")
        if self.socket_status:
            raise web.HTTPInternalServerError
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while not self.queued:
            await asyncio.sleep(0.01)
        if self.freezes:
            self.freezes.wait()  # blocks the server's only thread, as SIGSTOP does
        if self.ends:
            await socket.send_json({"type": "execution_success", "data": {"prompt_id": self.queued[-1]}})
        async for _ in socket:
            pass
        return socket

    async def prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.queued.append(body["prompt_id"])
        return web.json_response({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})

    async def queue(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.asked.append(f"delete {json.dumps((await request.json())['delete'])}")
        return web.json_response({"queue_running": [[1, p] for p in self.queued], "queue_pending": []})

    async def interrupt(self, request: web.Request) -> web.Response:
        self.asked.append(f"interrupt {(await request.json())['prompt_id']}")
        return web.Response()

    async def history(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        known = self.ends and number in self.queued
        return web.json_response({number: {"outputs": {"9": {"images": self.outputs}}}} if known else {})

    async def viewed(self, request: web.Request) -> web.StreamResponse:
        if self.view is not None:
            return web.Response(body=self.view + request.query["subfolder"].encode())
        answer = web.StreamResponse(headers={"Content-Length": "1000000"})
        await answer.prepare(request)
        await answer.write(b"half")
        request.transport.close()
        return answer

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get(f"/{name}", getattr(self, name)) for name in ("system_stats", "ws", "queue")])
        app.add_routes([web.post(f"/{name}", getattr(self, name)) for name in ("prompt", "queue", "interrupt")])
        app.add_routes([web.get("/history/{number}", self.history), web.get("/view", self.viewed)])
        return app


@contextmanager
def serving(**behaviour: Any) -> Iterator[Server]:
    """A server on a port of its own, in a thread, for as long as the block runs."""
    server, loop = Server(**behaviour), asyncio.new_event_loop()
    runner = web.AppRunner(server.app(), shutdown_timeout=0)

    async def begin() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
