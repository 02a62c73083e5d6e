"""``python -m framepack store``: what the section store holds, by video, and clearing it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..errors import FramePackError
from ..store.inventory import chosen, clear, megabytes, table, videos_of

PACK = Path(__file__).resolve().parents[2]


def add_store(commands: Any) -> None:
    """Add the command to a parser's commands."""
    store = commands.add_parser("store", help="show the finished sections on disk, by video, and clear them")
    store.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="FOLDER",
        help="FRAMEPACK_STORE, else user/framepack_sections of the ComfyUI that this pack lies in",
    )
    store.add_argument("--clear", metavar="VIDEO", help="remove a video by its number or title, or all")
    store.add_argument("--locked", action="store_true", help="with --clear: locked takes too")
    store.set_defaults(run=_store)


def _store(arguments: argparse.Namespace) -> str:
    folder = arguments.folder or _folder()
    if not folder.is_dir():
        raise FramePackError(f"The section store is a folder; {folder} is none. Name the folder that ComfyUI uses.")
    if arguments.locked and not arguments.clear:
        raise FramePackError("--locked goes with --clear VIDEO. Without --clear nothing is removed.")
    videos = videos_of(folder)
    if not arguments.clear:
        return table(videos, folder)
    return cleared(folder, arguments.clear, locked=arguments.locked)


def cleared(folder: Path, which: str, *, locked: bool) -> str:
    """Clear a video by its number or title, or all; what became of it. Raises FramePackError for no such video."""
    videos = videos_of(folder)
    try:
        num, freed = clear(chosen(videos, which), locked=locked)
    except LookupError as fault:
        raise FramePackError(
            f"A video of the store is a number from 1 to {len(videos)}, a title, or all; got {which!r:.60}. List the "
            "store first."
        ) from fault
    return f"{num} sections removed, {megabytes(freed)} freed\n{table(videos_of(folder), folder)}"


def _folder() -> Path:
    named = os.environ.get("FRAMEPACK_STORE", "")
    if named and named != "off":
        return Path(named)
    return PACK.parent.parent / "user" / "framepack_sections"
