"""Finished sections on disk, so that nothing that was sampled is ever sampled again.

An entry is a safetensors file under a digest of everything that determines it. It is written beside its place, synced,
and renamed: finished means renamed. Its metadata holds a checksum of its values, which is verified on reading; an entry
that fails is removed and made again. Several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

log = logging.getLogger(__name__)

ENDING, UNFINISHED = ".safetensors", ".part"
ABANDONED = 3600  # seconds after which an unfinished file belongs to a process that was killed


@dataclass(slots=True)
class SectionStore:
    """A folder of finished sections of at most `limit` bytes; what was used longest ago goes first."""

    folder: Path
    limit: int
    _said: set[str] = field(default_factory=set)

    def get(self, key: str) -> Tensor | None:
        """The latents of a key, or None where there are none, they cannot be read, or they are broken."""
        path = self.folder / (key + ENDING)
        try:
            latents = _checked(path.read_bytes())  # not mapped: what was checked stays as it was
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as fault:  # it may be whole: another time it may be read
            self._say(f"finished sections in {self.folder} cannot be read: {fault.strerror}. The run makes them again.")
            return None
        except SafetensorError as fault:
            log.warning("the stored section %s is broken (%s); it is made again", path.name, fault)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # it counts as used now
            os.utime(path)
        return latents

    def put(self, key: str, latents: Tensor) -> bool:
        """Keep the latents of a key; False where the disk does not take them, which is said once and harms nothing."""
        held = latents.detach().cpu().contiguous()
        data = save({"latents": held}, {"sha256": checksum(held)})
        part = self.folder / f"{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}{UNFINISHED}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.folder / (key + ENDING))
            self._sync_folder()
        except OSError as fault:
            with suppress(OSError):
                part.unlink()
            self._say(
                f"finished sections are not kept: {fault.strerror} in {self.folder}. The run goes on; free it, or name "
                "another folder, to keep them."
            )
            return False
        with suppress(OSError):  # another process may remove the folder meanwhile
            self._make_room(key)
        return True

    def _sync_folder(self) -> None:
        """So that the renaming itself survives a power cut; not every system can."""
        with suppress(OSError):
            handle = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _make_room(self, newest: str) -> None:
        """Remove what was used longest ago beyond the limit, and unfinished files of processes that were killed."""
        found, now = [], time.time()
        for path in self.folder.iterdir():
            with suppress(OSError):  # another process may remove it meanwhile
                stat = path.stat()
                if path.suffix == UNFINISHED and now - stat.st_mtime > ABANDONED:
                    path.unlink()
                if path.suffix == ENDING:
                    found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit or path.stem == newest:
                continue
            with suppress(OSError):
                path.unlink()
            total -= size

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)


def _checked(data: bytes) -> Tensor:
    """The latents of an entry's file. Raises SafetensorError where it is not whole or its values are others."""
    latents = load(data).get("latents")
    size = int.from_bytes(data[:8], "little")
    stated = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get("sha256")
    if latents is None or checksum(latents) != stated:
        raise SafetensorError("its checksum is wrong")
    return latents


def checksum(latents: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and values."""
    sha = hashlib.sha256(f"{latents.dtype}{list(latents.shape)}".encode())
    if latents.numel():
        sha.update(latents.contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()
