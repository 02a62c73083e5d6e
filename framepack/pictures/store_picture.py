"""The picture of a section store: a bar for each video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .drawing import BLANK, FAINT, GENERATED, IMAGE, INK, MARGIN, SMALL, TEXT, WIDTH, Picture, blank, length, write

ROW, MAX_ROWS = 64, 12


class Held(Protocol):
    """A video in a store."""

    @property
    def title(self) -> str:
        """Its name."""
        ...

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    @property
    def num_locked(self) -> int:
        """Its locked takes."""
        ...


def draw_store(videos: Sequence[Held], limit: int) -> Picture:
    """The largest share of the limit that each video takes, the latest used first; of many videos the first ones."""
    shown = videos[:MAX_ROWS]
    picture, draw = blank(88 + ROW * max(len(shown), 1) + 16)
    total = sum(video.size for video in videos)
    more = f", {len(shown)} of them shown" if len(shown) < len(videos) else ""
    title = f"Finished sections: {_size(total)} of {_size(limit)}, {len(videos)} videos{more}"
    write(draw, (MARGIN, 20), title, INK, TEXT, WIDTH - 2 * MARGIN)
    if not shown:
        write(draw, (MARGIN, 84), "Nothing is stored.", FAINT, SMALL)
    longest = max((video.size for video in shown), default=1)
    for number, video in enumerate(shown, 1):
        top, size = 80 + ROW * (number - 1), _size(video.size)
        room = WIDTH - 2 * MARGIN - length(draw, size, SMALL) - 16
        write(draw, (MARGIN, top), f"{number}  {video.title or '(no title)'}", INK, SMALL, room)
        write(draw, (WIDTH - MARGIN - length(draw, size, SMALL), top), size, FAINT, SMALL)
        draw.rectangle((MARGIN, top + 34, WIDTH - MARGIN, top + 46), BLANK)
        right = MARGIN + (WIDTH - 2 * MARGIN) * video.size / max(longest, 1)
        draw.rectangle((MARGIN, top + 34, right, top + 46), IMAGE if video.num_locked else GENERATED)
    return picture


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
