"""The cache of a data set: latents of every clip and the text of every caption, in safetensors files.

    CACHE/index.json            which clips there are, their captions, and what was left out
    CACHE/clips/KEY.safetensors latents of the clips of one source file, ``c t h w`` each, named 0, 1, ...
    CACHE/text/KEY.safetensors  what a model takes for one caption

Every file is written beside its place, synced and renamed, so it is whole or absent, and carries a checksum of its
values. Latents are as the model takes them, scaled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import FramePackError
from ..store.digest import digest

INDEX, VERSION = "index.json", 1


class CacheError(FramePackError):
    """A cache that is missing, damaged, or of another version."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent. Raises FramePackError where the disk does not take it."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise FramePackError(f"Cannot write {path}: {fault.strerror}. Free space there, then start again.") from fault


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors with a checksum. Raises FramePackError where the disk does not take them."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(held, {"sha256": digest(held)}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, its checksum verified. Raises CacheError."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            stated = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as fault:
        raise CacheError(f"Cannot read {path}: {fault}. Delete it and encode again.") from fault
    if digest(tensors) != stated:
        raise CacheError(f"{path} is damaged (its checksum is wrong). Delete it and encode again.")
    return tensors


def is_whole(path: Path) -> bool:
    """Does a file of the cache exist with a checksum? Its values are verified when it is read."""
    try:
        with safe_open(path, "pt") as file:
            return "sha256" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip of a data set: its file under clips/, its tensor there, its shape ``(c, t, h, w)``, its captions.

    `tag` names a part of the data that a share of a mixture can ask for.
    """

    file: str
    name: str
    shape: tuple[int, int, int, int]
    captions: tuple[str, ...]
    tag: str = ""

    @property
    def num_lat_frames(self) -> int:
        """Its length."""
        return self.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Latent height and width."""
        return self.shape[2], self.shape[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What a cache holds: clips, the encoder that made them, and the files that were left out, with the reasons.

    Latents as a VAE has them are those of the cache times `scale` plus `shift`, one each a channel, where known.
    """

    encoder: str
    clips: tuple[Clip, ...]
    grey: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    scale: Sequence[float] = ()
    shift: Sequence[float] = ()

    def write(self, folder: Path) -> None:
        """Write it into a cache."""
        data = {"version": VERSION, **asdict(self)}
        write_whole(folder / INDEX, json.dumps(data, separators=(",", ":")).encode())

    @classmethod
    def read(cls, folder: Path) -> Index:
        """Read a cache's index. Raises CacheError."""
        try:
            data: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if data.pop("version") != VERSION:
                raise CacheError(f"The cache {folder} has another version. Delete it and encode again.")
            data["clips"] = tuple(_clip(each) for each in data["clips"])
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as fault:
            if isinstance(fault, CacheError):
                raise
            raise CacheError(
                f"{folder} is no finished cache ({fault!r:.120}). Set data.folder to the videos to encode, or name a "
                "cache that is finished."
            ) from fault


def _clip(data: Mapping[str, Any]) -> Clip:
    shape, captions = tuple(data["shape"]), tuple(data["captions"])
    return Clip(file=data["file"], name=data["name"], shape=shape, captions=captions, tag=data.get("tag", ""))


def text_path(folder: Path, encoder: str, caption: str) -> Path:
    """Where the text of a caption lies in a cache."""
    return folder / "text" / f"{digest({'encoder': encoder, 'caption': caption})[:32]}.safetensors"


def clip_path(folder: Path, file: str) -> Path:
    """Where a clips' file lies in a cache."""
    return folder / "clips" / file


class Texts:
    """What a model takes for captions, from a cache: tensors by the name of the model's argument."""

    def __init__(self, folder: Path, encoder: str):
        self.folder, self.encoder = folder, encoder
        self.held: dict[str, dict[str, Tensor]] = {}

    def __call__(self, captions: list[str]) -> dict[str, Tensor]:
        """Arguments of the captions, stacked; word states ``b l d`` of different lengths get a mask ``b l``."""
        each = [self._one(caption) for caption in captions]
        stacked = {}
        for name in each[0]:
            parts = [tensors[name] for tensors in each]
            longest = max(len(part) for part in parts)
            if any(len(part) != longest for part in parts):
                mask = torch.tensor([[i < len(part) for i in range(longest)] for part in parts])
                stacked["attention_mask"] = mask
                parts = [torch.cat([p, p.new_zeros(longest - len(p), *p.shape[1:])]) for p in parts]
            stacked[name] = torch.stack(parts)
        return stacked

    def _one(self, caption: str) -> dict[str, Tensor]:
        if caption not in self.held:
            path = text_path(self.folder, self.encoder, caption)
            if not path.exists():
                raise CacheError(f"The cache {self.folder} has no text for the caption {caption!r:.60}; encode again.")
            self.held[caption] = read_tensors(path)
        return self.held[caption]
