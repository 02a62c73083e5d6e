"""What a section store holds, by video, and clearing it. Reads headers only; touches no file but a store's own.

The store is a folder of entries; takes that are locked lie in its folder `locked`, which is never trimmed.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(r"[0-9a-f]{16,64}\.safetensors")
LOCKED = "locked"  # the folder of locked takes in a store's folder
MAX_HEADER = 100_000  # bytes; a section's has a few hundred
UNNAMED = "(from an earlier version)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One finished section's file: its video's title, its bytes, and when it was last used."""

    path: Path
    size: int
    used: float
    video: str
    locked: bool

    def remove(self) -> int:
        """Remove the file; the bytes that this frees."""
        with suppress(OSError):
            self.path.unlink()
            return self.size
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVideo:
    """All sections of one video in a store."""

    title: str
    sections: tuple[Stored, ...]

    @property
    def size(self) -> int:
        """Bytes of all its sections."""
        return sum(section.size for section in self.sections)

    @property
    def used(self) -> float:
        """When one of them was last used."""
        return max(section.used for section in self.sections)

    @property
    def num_locked(self) -> int:
        """How many of them are locked takes."""
        return sum(section.locked for section in self.sections)


def sections_of(folder: Path) -> Iterator[Stored]:
    """Every entry of a store; none for a folder that is not there."""
    for place in (folder, folder / LOCKED):
        with suppress(OSError):
            for path in sorted(place.iterdir()):
                if ENTRY.fullmatch(path.name):
                    with suppress(OSError):  # another process may remove it
                        held = path.lstat()
                        if stat.S_ISREG(held.st_mode):
                            video, locked = about(path).get("video") or UNNAMED, place != folder
                            size, used = held.st_size, held.st_mtime
                            yield Stored(path=path, size=size, used=used, video=video, locked=locked)


def about(path: Path) -> dict[str, str]:
    """What an entry's header says of it; nothing for one that does not read."""
    with suppress(OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError), path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size <= MAX_HEADER:
            stated = json.loads(file.read(size))["__metadata__"]
            return {str(name): str(value) for name, value in stated.items()}
    return {}


def videos_of(folder: Path) -> list[StoredVideo]:
    """A store by video, the latest used first."""
    found: dict[str, list[Stored]] = {}
    for section in sections_of(folder):
        found.setdefault(section.video, []).append(section)
    videos = [StoredVideo(title=title, sections=tuple(sections)) for title, sections in found.items()]
    return sorted(videos, key=lambda video: -video.used)


def clear(sections: Iterable[Stored], *, locked: bool = False) -> tuple[int, int]:
    """Remove sections, locked ones only if `locked`: how many, and the bytes that this frees."""
    freed = [section.remove() for section in sections if locked or not section.locked]
    return sum(size > 0 for size in freed), sum(freed)


def table(videos: Iterable[StoredVideo], folder: Path, limit: int | None = None) -> str:
    """The store for people: a numbered line for each video."""
    videos = list(videos)
    total, bound = sum(video.size for video in videos), "" if limit is None else f" of {megabytes(limit)}"
    lines = [f"{folder}: {megabytes(total)}{bound}, {len(videos)} videos"]
    for number, video in enumerate(videos, 1):
        locked = f", {video.num_locked} locked" if video.num_locked else ""
        lines.append(f"{number:>3}  {megabytes(video.size):>10}  {len(video.sections)} sections{locked}  {video.title}")
    return "\n".join(lines)


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def chosen(videos: list[StoredVideo], which: str) -> list[Stored]:
    """The sections of a video by its number or title, or of `all`. Raises LookupError for none of these."""
    if which == "all":
        return [section for video in videos for section in video.sections]
    for number, video in enumerate(videos, 1):
        if which in (str(number), video.title):
            return list(video.sections)
    raise LookupError(which)
