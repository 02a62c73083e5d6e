"""The pack's one HTTP route: pictures of nodes while they are edited. It reads and writes nothing.

POST /framepack/draw answers with a PNG, a line of text in the header X-FramePack-Text, and for a plan that is not too
long JSON for the page's timeline in X-FramePack-Data, or with status 400 and JSON:
`message`, and for a fault in a text `text`, `at` and `end`, the range of its characters. Status 409 is no
fault of the node: another one has it and shows it, or only a run can tell.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Any
from urllib.parse import quote

from aiohttp import web
from PIL.Image import Image
from server import PromptServer

from ...framepack.errors import FramePackError, ScheduleError

log = logging.getLogger(__name__)

PATH = "/framepack/draw"
MAX_BODY = 256 * 1024  # bytes
MAX_DATA = 6000  # characters of a header
CACHED = 64  # pictures of about 20 kB

Draw = Callable[[Any], tuple[Image, str, dict[str, Any] | None]]


def serve_pictures(draw: Draw, not_yet: type[FramePackError]) -> None:
    """Answer the route with what `draw` makes of a request's JSON; one picture at a time, away from the event loop.

    `draw` raises `not_yet` where nothing is wrong with the node that is drawn.
    """
    busy = asyncio.Lock()

    @lru_cache(CACHED)
    def answer(body: bytes) -> tuple[int, bytes, dict[str, str]]:
        try:
            picture, text, data = draw(json.loads(body))
        except not_yet as fault:
            return 409, json.dumps(_fault(fault)).encode(), {}
        except FramePackError as fault:
            return 400, json.dumps(_fault(fault)).encode(), {}
        except (ValueError, RecursionError):
            return 400, b'{"message": "The request is not valid JSON."}', {}
        stream = BytesIO()
        picture.save(stream, "PNG", compress_level=1)
        said = {"X-FramePack-Text": quote(text)}
        if data is not None and len(held := quote(json.dumps(data, separators=(",", ":")))) <= MAX_DATA:
            said["X-FramePack-Data"] = held
        return 200, stream.getvalue(), said

    @PromptServer.instance.routes.post(PATH)
    async def respond(request: web.Request) -> web.Response:
        if (request.content_length or MAX_BODY + 1) > MAX_BODY:
            return web.json_response({"message": f"A request has at most {MAX_BODY} bytes."}, status=400)
        body = await request.content.read(MAX_BODY + 1)
        async with busy:
            status, content, said = await asyncio.to_thread(answer, body)
        kind = "image/png" if status == 200 else "application/json"
        return web.Response(status=status, body=content, content_type=kind, headers=said)


def _fault(fault: FramePackError) -> dict[str, Any]:
    if not isinstance(fault, ScheduleError):
        return {"message": str(fault)}
    return {"message": f"{fault.fault} {fault.remedy}", "text": fault.text, "at": fault.at, "end": fault.end}
