"""A folder of videos and images with captions, and their frames at a bucket's size.

Captions stand in a ``.txt`` beside each file, one caption a line, or in JSON lines such as
``{"file": "a.mp4", "caption": "..."}``, where a caption may be a list of wordings. Dims: t frames, h w picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FramePackError, MissingPackageError
from ..planning.buckets import BASE_SIZE, BUCKETS

VIDEOS = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
UNIT = 32  # pixels; the paper's smallest step of a bucket's sides (section 4.2)
FILE_KEYS, CAPTION_KEYS = ("file", "file_name", "path"), ("caption", "captions", "text")


class MediaError(FramePackError):
    """A video, image or caption that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of the data set, its path relative to the folder, and its captions."""

    path: Path
    name: str
    captions: tuple[str, ...]


def sources_of(folder: Path) -> tuple[list[Source], dict[str, str]]:
    """The files of a folder that have captions, in order of name; and what was left out, with the reasons.

    Raises MediaError where the folder is none, or a line of JSON cannot be read.
    """
    if not folder.is_dir():
        raise MediaError(f"data.folder must be a folder of videos and images; got {folder}.")
    listed = _listed(folder)
    found, left_out = [], {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEOS | IMAGES):
        name, beside = path.relative_to(folder).as_posix(), path.with_suffix(".txt")
        captions = listed.pop(path, ())
        if beside.is_file():
            captions = tuple(filter(None, map(str.strip, beside.read_text(encoding="utf-8").splitlines())))
        if captions:
            found.append(Source(path=path, name=name, captions=captions))
        else:
            left_out[name] = f"no caption; write {beside.name} beside it, or a line of JSON"
    left_out |= {path.relative_to(folder).as_posix(): "named in JSON lines, but not there" for path in listed}
    return found, left_out


def _listed(folder: Path) -> dict[Path, tuple[str, ...]]:
    """Captions by file, from the JSON lines in a folder."""
    found = {}
    for lines in sorted(folder.rglob("*.jsonl")):
        for number, line in enumerate(lines.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                file, captions = _entry(line, f"{lines.name}, line {number}")
                found[lines.parent / file] = captions
    return found


def _entry(line: str, where: str) -> tuple[str, tuple[str, ...]]:
    try:
        data: Any = json.loads(line)
        file = next(data[key] for key in FILE_KEYS if key in data)
        captions = next(data[key] for key in CAPTION_KEYS if key in data)
        captions = (captions,) if isinstance(captions, str) else tuple(map(str, captions))
        return str(file), captions
    except (ValueError, TypeError, StopIteration) as fault:
        raise MediaError(f'{where} must be {{"file": "...", "caption": "..."}}; got {line!r:.80}.') from fault


@cache
def buckets(base: int) -> tuple[tuple[int, int], ...]:
    """Heights and widths of the paper's buckets for a base in pixels, in units of 32."""
    return tuple(dict.fromkeys((_side(height, base), _side(width, base)) for height, width in BUCKETS))


def _side(pixels: int, base: int) -> int:
    return max(round(pixels * base / BASE_SIZE / UNIT), 1) * UNIT


def bucket_of(height: int, width: int, base: int) -> tuple[int, int]:
    """The bucket whose shape is nearest to a picture's, by the released models' rule; the last of equals."""
    return min(reversed(buckets(base)), key=lambda size: abs(height * size[1] - width * size[0]))


def frames_of(path: Path, fps: float, base: int) -> Iterator[Tensor]:
    """Frames ``h w 3`` (uint8) of a video at a rate, or of an image, cropped to its bucket. Raises MediaError."""
    av = _av()
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise MediaError("it has no pictures")
            stream = file.streams.video[0]
            stream.thread_type = "AUTO"
            yield from _at_rate(file.decode(stream), fps, base)
    except (av.FFmpegError, OSError, ValueError) as fault:
        raise MediaError(f"it cannot be read ({fault!s:.120})") from fault


def _at_rate(frames: Iterator[Any], fps: float, base: int) -> Iterator[Tensor]:
    """For each moment of the rate, the frame that is shown then."""
    shown, first, count = None, None, 0
    for frame in frames:
        time = float(frame.time or 0.0)
        first = time if first is None else first
        while shown is not None and count / fps < time - first - 1e-6:
            yield _cropped(shown, base)
            count += 1
        shown = frame
    if shown is None:
        raise MediaError("it has no frames")
    yield _cropped(shown, base)


def _cropped(frame: Any, base: int) -> Tensor:
    """A frame scaled so that it covers its bucket, and cut to it from the middle."""
    height, width = bucket_of(frame.height, frame.width, base)
    scale = max(height / frame.height, width / frame.width)
    high, wide = max(round(frame.height * scale), height), max(round(frame.width * scale), width)
    picture = torch.from_numpy(frame.reformat(wide, high, "rgb24", interpolation="LANCZOS").to_ndarray())
    top, left = (high - height) // 2, (wide - width) // 2
    return picture[top : top + height, left : left + width]


def clips_of(path: Path, fps: float, base: int, longest: float) -> Iterator[Tensor]:
    """Clips ``3 t h w`` in [-1, 1] of a file, one after another, each of 4n + 1 frames. Raises MediaError."""
    most = max(int(longest * fps - 1) // 4, 0) * 4 + 1
    held: list[Tensor] = []
    for frame in frames_of(path, fps, base):
        held.append(frame)
        if len(held) == most:
            yield _pixels(held)
            held = []
    if held:
        yield _pixels(held[: (len(held) - 1) // 4 * 4 + 1])


def _pixels(frames: list[Tensor]) -> Tensor:
    return torch.stack(frames).permute(3, 0, 1, 2).float().div_(127.5).sub_(1)


def _av() -> Any:
    try:
        import av
    except ImportError as fault:
        raise MissingPackageError("Reading videos needs the package av: pip install av.") from fault
    return av
