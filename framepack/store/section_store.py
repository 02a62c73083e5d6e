"""Finished sections on disk, so that no section is sampled twice.

An entry is a safetensors file under a digest of everything that determines it. It is written beside its place, synced,
and renamed: an entry that has its name is whole. Its checksum covers its key, dtype, shape and values, and is verified
on reading; an entry that fails is removed and sampled again. Several processes may share a folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import printable
from .inventory import LOCKED, about

log = logging.getLogger(__name__)

ENDING, UNFINISHED = ".safetensors", ".part"
ABANDONED = 3600  # seconds after which an unfinished file belongs to a process that was killed
COARSE = 2  # seconds; some file systems round times to this
SLACK = 0.1  # of the limit: how much is put, or removed beyond it, before the folder is looked through again
FULL = (errno.ENOSPC, errno.EDQUOT)


class BrokenEntryError(Exception):
    """An entry that is not whole, or is another's."""


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """A finished section's file, and when it was last used."""

    used: float
    size: int
    path: Path

    def remove(self) -> int:
        """Remove the file; the bytes that this frees."""
        with suppress(OSError):
            self.path.unlink()
            return self.size
        return 0


@dataclass(slots=True)
class SectionStore:
    """A folder of finished sections of at most `limit` bytes; the least recently used go first.

    Several processes may put entries. Each looks through the folder whenever its own fill a tenth of the limit, so
    the limit is exceeded by no more than a tenth for each of them.
    """

    folder: Path
    limit: int
    _since: float = field(default_factory=time.time)  # when the current run began
    _room: float = 0  # bytes to put before the folder is looked through again
    _reported: set[str] = field(default_factory=set)

    def begin_run(self) -> None:
        """A run begins. Where the disk is full, entries that it does not use make room for its own."""
        self._since = time.time()

    def get(self, key: str) -> Tensor | None:
        """The latents of a key, or None where there are none, they cannot be read, or they are broken."""
        path = self.folder / (key + ENDING)
        if not path.exists() and (kept := self.folder / LOCKED / path.name).exists():
            path = kept
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait forever
                raise BrokenEntryError("it is not a regular file")
            latents = entry_of(path.read_bytes(), key)  # not mapped: what was checked stays as it was
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as fault:  # it may be whole: another time it may be read
            self._report(
                f"The section store {self.folder} cannot be read: {fault.strerror}. Its sections are resampled."
            )
            return None
        except BrokenEntryError as fault:
            log.warning("the stored section %s is broken (%s) and is sampled again", path.name, fault)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # it counts as used now
            os.utime(path)
        return latents

    def take(self, id: str) -> tuple[Tensor, dict[str, str]] | None:
        """A take's latents, and what its entry says of it, by how its key begins; None where it is lost.

        From now on it is kept until the user clears it: a copy lies in a folder that is never trimmed.
        """
        for path in (
            *sorted((self.folder / LOCKED).glob(f"{id}*{ENDING}")),
            *sorted(self.folder.glob(f"{id}*{ENDING}")),
        ):
            with suppress(OSError, BrokenEntryError):
                if stat.S_ISREG(path.stat().st_mode):
                    latents, said = entry_of(path.read_bytes(), path.stem), about(path)
                    self._lock(path)
                    return latents, said
        return None

    def holds(self, id: str) -> bool:
        """Is there a take whose key begins so? It is locked from now on."""
        return self.take(id) is not None

    def _lock(self, path: Path) -> None:
        """Keep a copy of an entry in the folder of locked takes."""
        target = self.folder / LOCKED / path.name
        if path == target or target.exists():
            return
        try:
            target.parent.mkdir(exist_ok=True)
            part = target.with_name(f"{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
            shutil.copyfile(path, part)
            part.replace(target)
        except OSError as fault:
            self._report(f"A locked take may be trimmed from {self.folder}: {fault.strerror}. Free space there.")

    def put(self, key: str, latents: Tensor, said: Mapping[str, Any] | None = None) -> bool:
        """Keep the latents of a key, and what is `said` of them. False where the disk does not take them, said once."""
        held = latents.detach().cpu().contiguous()
        stated = {name: printable(str(value), 200) for name, value in (said or {}).items()}
        data = save({"latents": held}, stated | {"sha256": checksum(key, held)})
        try:
            self._write_or_make_room(key, data)
        except OSError as fault:
            self._report(
                f"Finished sections are not stored: {fault.strerror} in {self.folder}. The run continues. To store "
                "them, free space there, or set FRAMEPACK_STORE to another folder."
            )
            return False
        self._room -= len(data)
        if self._room < 0:
            self._trim(key)
        return True

    def _write_or_make_room(self, key: str, data: bytes) -> None:
        try:
            self._write(key, data)
        except OSError as fault:
            if fault.errno not in FULL or not self._free(len(data)):
                raise
            self._write(key, data)

    def _write(self, key: str, data: bytes) -> None:
        """Write an entry's file whole, or leave nothing. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}{UNFINISHED}"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._name(part, self.folder / (key + ENDING))
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        self._sync_folder()

    def _name(self, part: Path, entry: Path) -> None:
        """Give a whole file its name. Where Windows lets no one replace a file in use, the entry in use stays."""
        try:
            part.replace(entry)
        except PermissionError:
            if not entry.is_file():
                raise
            part.unlink()

    def _sync_folder(self) -> None:
        """So that the renaming itself survives a power cut; not every system can."""
        with suppress(OSError):
            handle = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _entries(self) -> list[_Entry]:
        """All entries, the least recently used first. Removes unfinished files of processes that were killed."""
        found, now = [], time.time()
        with suppress(OSError):  # another process may remove the folder
            for file in os.scandir(self.folder):
                with suppress(OSError):  # or the file
                    held, path = file.stat(), Path(file.path)
                    if path.suffix == UNFINISHED and now - held.st_mtime > ABANDONED:
                        path.unlink()
                    if path.suffix == ENDING and stat.S_ISREG(held.st_mode):
                        found.append(_Entry(held.st_mtime, held.st_size, path))
        return sorted(found)

    def _trim(self, newest: str) -> None:
        """Keep to the limit, and a little below it once it is exceeded."""
        entries = self._entries()
        total = sum(entry.size for entry in entries)
        aim = self.limit if total <= self.limit else (1 - SLACK) * self.limit
        for entry in entries:
            if total > aim and entry.path.stem != newest:
                total -= entry.remove()
        self._room = min(self.limit - total, SLACK * self.limit)

    def _free(self, size: int) -> bool:
        """Remove entries that this run has not used until so many bytes are free. False where there are too few."""
        old = [entry for entry in self._entries() if entry.used < self._since - COARSE]
        if sum(entry.size for entry in old) < size:
            return False
        for entry in old:
            if size > 0:
                size -= entry.remove()
        return size <= 0

    def _report(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            log.warning("%s", printable(message, 1000))


def entry_of(data: bytes, key: str) -> Tensor:
    """The latents of an entry's file. Raises BrokenEntryError where it is not whole, or is not this key's."""
    size = int.from_bytes(data[:8], "little")
    try:
        stated = json.loads(data[8 : 8 + size])["__metadata__"]["sha256"]
        latents = load(data)["latents"]
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as fault:
        raise BrokenEntryError(f"it cannot be read: {type(fault).__name__}") from fault
    if checksum(key, latents) != stated:
        raise BrokenEntryError("its checksum is wrong")
    return latents


def checksum(key: str, latents: Tensor) -> str:
    """SHA-256 of an entry's key and its tensor's dtype, shape and values."""
    sha = hashlib.sha256(f"{key} {latents.dtype} {list(latents.shape)}".encode())
    if latents.numel():
        sha.update(latents.contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()
