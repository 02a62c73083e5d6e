"""What a run saved, and how its files are copied from a host: complete or not at all, over no other file."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from .job import QueueError

CHUNK = 1 << 20  # bytes
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # in a file name, by some system


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
        items = [item for by_kind in self.outputs.values() for some in by_kind.values() for item in some]
        return [item for item in items if isinstance(item, dict) and item.get("type") == "output"]


async def save(session: aiohttp.ClientSession, url: str, item: dict[str, str], folder: Path) -> Path:
    """Copy a saved file from a host into a folder, under its own name or that with a number. Raises QueueError."""
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        async with session.get(f"{url}/view", params=item) as answer:
            answer.raise_for_status()
            with part.open("xb") as file:
                async for chunk in answer.content.iter_chunked(CHUNK):
                    file.write(chunk)
        return _named(part, folder, item["filename"])
    except OSError as fault:
        if isinstance(fault, aiohttp.ClientError):  # the network's, not the disk's
            raise
        raise QueueError(f"Cannot save {item['filename']} in {folder}: {fault.strerror or fault}.") from fault
    finally:
        part.unlink(missing_ok=True)


def _named(part: Path, folder: Path, name: str) -> Path:
    """Give a complete file the first free name."""
    wanted = Path(FORBIDDEN.sub("_", name))
    for number in count(1):
        path = folder / (wanted.name if number == 1 else f"{wanted.stem} ({number}){wanted.suffix}")
        try:
            path.open("xb").close()  # takes the name, so that no other process does
        except FileExistsError:
            continue
        os.replace(part, path)
        return path
    raise AssertionError("numbers do not end")
