"""What a run says of itself: a line with the time left, and the loss by noise level and by schedule.

``log.jsonl`` has one line for each step: its loss, schedule, rate, and every clip's noise level and loss. All else is
computed from it. A run that resumes cuts it at the step that it resumes from.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import MissingPackageError

LEVELS = 10  # bins of noise levels
RECENT = 50  # steps that the time left is reckoned from


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One step: levels and losses are those of its clips, of a large step those of some."""

    step: int
    schedule: str
    rate: float
    loss: float
    levels: tuple[float, ...]
    losses: tuple[float, ...]


class Watcher(Protocol):
    """Whoever follows a run."""

    def step(self, record: Record, line: str) -> None:
        """A step is done; `line` sums up the steps since the last line, and is empty otherwise."""


def by_level(records: Iterable[Record]) -> dict[str, float]:
    """The mean loss of the clips in each tenth of the noise levels."""
    return _means(
        (f"{min(int(level * LEVELS), LEVELS - 1) / LEVELS:.1f}", loss)
        for record in records
        for level, loss in zip(record.levels, record.losses, strict=True)
    )


def by_schedule(records: Iterable[Record]) -> dict[str, float]:
    """The mean loss of each schedule."""
    return _means((record.schedule, record.loss) for record in records)


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        found[name].append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def said(seconds: float) -> str:
    """A time for people."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Log:
    """The log of a run, and its lines."""

    def __init__(self, path: Path, steps: int, every: int, done: int):
        self.steps, self.every = steps, every
        self.times: deque[float] = deque([time.monotonic()], RECENT + 1)
        self.since: list[Record] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [record for record in read_log(path) if record.step <= done]
        self.file = path.open("w", encoding="utf-8")
        for record in kept:
            self._write(record)

    def _write(self, record: Record) -> None:
        self.file.write(json.dumps(asdict(record), separators=(",", ":")) + "\n")
        self.file.flush()

    def add(self, record: Record) -> str:
        """Take in a step; a line where one is due, else nothing."""
        self._write(record)
        self.since.append(record)
        self.times.append(time.monotonic())
        if record.step % self.every and record.step != self.steps:
            return ""
        each = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        losses = [r.loss for r in self.since]
        self.since = []
        return (
            f"step {record.step} of {self.steps}, loss {sum(losses) / len(losses):.4f}, {each:.2f} s a step, "
            f"{said(each * (self.steps - record.step))} left"
        )

    def close(self) -> None:
        """Nothing follows."""
        self.file.close()


def read_log(path: Path) -> list[Record]:
    """Every whole record of a log; a last line that was cut off is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            data: Mapping[str, Any] = json.loads(line)
        except ValueError:
            break
        records.append(Record(**data | {k: tuple(data[k]) for k in ("levels", "losses")}))
    return records


def summary(records: list[Record]) -> str:
    """The loss by noise level and by schedule, for people."""
    if not records:
        return "No steps."
    lines = ["loss by noise level"]
    lines += [f"  {level} {loss:8.4f}" for level, loss in by_level(records).items()]
    lines += ["loss by schedule", *(f"  {loss:.4f} {name}" for name, loss in by_schedule(records).items())]
    return "\n".join(lines)


class TensorBoard:
    """Event files for TensorBoard. Raises MissingPackageError without the package."""

    def __init__(self, folder: Path, done: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as fault:
            raise MissingPackageError(
                "run.tensorboard needs the package tensorboard: pip install tensorboard, or set it to false."
            ) from fault
        self.writer = SummaryWriter(folder, purge_step=done + 1)
        self.since: list[Record] = []

    def step(self, record: Record, line: str) -> None:
        """Write the step; with a line, the means by level and schedule since the last one."""
        self.writer.add_scalar("loss", record.loss, record.step)
        self.writer.add_scalar("rate", record.rate, record.step)
        self.since.append(record)
        if line:
            for name, means in (("level", by_level(self.since)), ("schedule", by_schedule(self.since))):
                for key, value in means.items():
                    self.writer.add_scalar(f"loss by {name}/{key}", value, record.step)
            self.since = []
            self.writer.flush()
