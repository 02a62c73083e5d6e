"""States of a run on disk: weights, their running mean, optimizers, and the step, by torch.distributed.checkpoint.

A state is a folder ``states/STEP`` that is written as ``STEP.part`` and renamed, so that a run which is killed at any
moment finds its last whole state. The newest few stay.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from ..errors import FramePackError
from .config import Config
from .parallel import alone, rank, wait, world

ABOUT = "about.json"
# Settings that may change when a run goes on: they change neither the data nor the arithmetic of a step.
FREE = {
    "run": (
        "out",
        "save_every",
        "keep",
        "report_every",
        "tensorboard",
        "other_world",
        "read_every",
        "skips",
        "sequence",
    ),
    "data": ("cache", "folder", "faults"),
    "model": ("path", "device"),
}


class StateError(FramePackError):
    """A state that does not belong to the run, or cannot be read or written."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that one process saves alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def identity(config: Config) -> dict[str, Any]:
    """What of a configuration a state depends on, as JSON data."""
    data = json.loads(json.dumps(asdict(config), default=str))
    for table in ("samples", "host"):  # what the host has encoded is told by the clips
        data.pop(table)
    for table, names in FREE.items():
        for name in names:
            data[table].pop(name)
    return data


def difference(before: Any, now: Any, where: str = "") -> str | None:
    """The first setting that differs, with both values; None for equal ones."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            found = difference(before.get(key), now.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        each = (difference(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(before, now, strict=True)))
        return next((found for found in each if found), None)
    return None if before == now else f"{where} was {before!r:.60} and is {now!r:.60}"


@dataclass(frozen=True, slots=True)
class States:
    """The states of one run. `about` is what identifies the run."""

    folder: Path
    about: Mapping[str, Any]
    keep: int = 2
    other_world: bool = False

    def newest(self) -> Path | None:
        """The last whole state. Raises StateError where it is another run's."""
        found = self._whole()
        if not found:
            return None
        try:
            kept = json.loads((found[-1] / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise StateError(
                f"Cannot read {found[-1] / ABOUT}: {fault}. Delete this state to use an older one."
            ) from fault
        if changed := difference(kept["run"], dict(self.about)):
            raise StateError(
                f"{found[-1]} belongs to another run: {changed}. Restore the setting, or choose another run.out."
            )
        if kept["world"] != world() and not self.other_world:
            raise StateError(
                f"{found[-1]} was saved by {kept['world']} processes; this run has {world()}. Start as many, or set "
                "run.other_world = true to go on with slightly different rounding."
            )
        return found[-1]

    def _whole(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.name.isdigit() and (path / ABOUT).is_file())

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after so many steps. Raises StateError where the disk does not take it."""
        path = self.folder / f"{step:09d}"
        part = path.with_name(path.name + ".part")
        try:
            if rank() == 0:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            wait()
            with _quiet():
                dcp.save(dict(state), checkpoint_id=part, no_dist=alone())
            if rank() == 0:
                (part / ABOUT).write_text(json.dumps({"run": self.about, "world": world()}), encoding="utf-8")
                shutil.rmtree(path, ignore_errors=True)
                part.replace(path)
                for old in self._whole()[: -self.keep]:
                    shutil.rmtree(old, ignore_errors=True)
            wait()
        except (OSError, dcp.CheckpointException) as fault:
            shutil.rmtree(part, ignore_errors=True)
            raise StateError(
                f"Cannot save the state of step {step} in {self.folder}: {fault}. Earlier states are whole. Free space "
                "there, then start the run again."
            ) from fault

    @staticmethod
    def stored(path: Path) -> dict[str, Any]:
        """What a state holds, by flat key: the metadata of its tensors. Raises StateError."""
        try:
            return dcp.FileSystemReader(path).read_metadata().state_dict_metadata
        except (OSError, EOFError, RuntimeError) as fault:
            raise _damaged(path, fault) from fault

    @staticmethod
    def load(path: Path, state: dict[str, Any], together: bool = True) -> None:
        """Read a state into the tensors of `state`, all processes `together` or this one alone. Raises StateError."""
        try:
            with _quiet():
                dcp.load(state, checkpoint_id=path, no_dist=alone() or not together)
        except (OSError, dcp.CheckpointException, RuntimeError, EOFError) as fault:
            raise _damaged(path, fault) from fault


def _damaged(path: Path, fault: BaseException) -> StateError:
    return StateError(f"The state {path} is damaged ({fault!s:.200}). Delete it to use an older one.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a state by name, the running means where it has them. Raises StateError."""
    found: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
    for key, about in States.stored(path).items():
        table, _, name = key.partition(".")
        if table in found and isinstance(about, TensorStorageMetadata):
            found[table][name] = torch.empty(about.size, dtype=about.properties.dtype)
    States.load(path, found, together=False)
    return found["model"] | found["average"]
