"""The section store on the graph: its size by video, and clearing it. The store belongs to the user."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io

from ..framepack.commands.keep_sections import cleared
from ..framepack.errors import FramePackError
from ..framepack.pictures.store_picture import draw_store
from ..framepack.store.inventory import table, videos_of
from . import host
from .types import CATEGORY, preview

SHOW, ONE, ALL, LOCKED = "show", "clear one video", "clear all", "clear all and locked takes"


class FramePackStore(io.ComfyNode):
    """Shows and clears the finished sections on disk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="FramePackStore",
            display_name="FramePack Section Store",
            category=CATEGORY,
            description="Shows the disk space of finished sections, by video, and clears them.",
            inputs=[
                io.Combo.Input(
                    "action",
                    options=[SHOW, ONE, ALL, LOCKED],
                    default=SHOW,
                    tooltip="What to do when the workflow runs. Locked takes stay unless the last choice is made.",
                ),
                io.String.Input(
                    "video",
                    default="",
                    optional=True,
                    tooltip="For clear one video: its number in the list, or its title.",
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="A line for each video.")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        """Always another: the store changes between runs."""
        return time.time()

    @classmethod
    def execute(cls, action: str, video: str = "") -> io.NodeOutput:
        """Show, or clear and show."""
        store = host.section_store()
        if store is None:
            raise FramePackError("The section store is off: FRAMEPACK_STORE is off. There is nothing to show or clear.")
        if action == ONE and not video.strip():
            raise FramePackError("Name the video to clear: its number in the list, or its title.")
        if action == SHOW:
            text = table(videos_of(store.folder), store.folder, store.limit)
        else:
            which = video.strip() if action == ONE else "all"
            text = cleared(store.folder, which, locked=action == LOCKED)
        return io.NodeOutput(text, ui=preview(draw_store(videos_of(store.folder), store.limit), text))
