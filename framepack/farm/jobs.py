"""Many jobs over several targets, such as hosts: in order, with retries, and a journal that a run resumes from."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .facts import FarmError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a retry; each is twice the one before


class RefusedError(FarmError):
    """A job that no retry would help."""


class FailedError(FarmError):
    """A job that failed and may succeed when it is tried again."""


class StoppedError(Exception):
    """The run was stopped while a job ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job: a line of the file by number, its contents, and an id that a resumed run finds it by."""

    number: int
    line: dict[str, Any]
    id: str

    def attempt(self, tries: int) -> str:
        """An id of one attempt."""
        return str(uuid.uuid5(uuid.UUID(self.id), str(tries)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished job: where, what it saved, how many of its sections were made and how many reused."""

    target: str
    outputs: Any = None
    made: int = 0
    reused: int = 0


class Target(Protocol):
    """Does one job at a time."""

    name: str

    def do(self, task: Task, tries: int, stop: Callable[[], bool]) -> Done:
        """Do it. Raises RefusedError, FailedError, StoppedError."""
        ...


def read_tasks(path: Path) -> list[Task]:
    """The jobs of a file of JSON lines. Raises FarmError for what is none, by line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise FarmError(f"The jobs {path} cannot be read ({fault}). Give a file of JSON lines.") from fault
    found = []
    for number, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        try:
            line = json.loads(row)
        except (ValueError, RecursionError) as fault:
            raise FarmError(
                f"Line {number} of {path.name} is no JSON ({fault}). Write one job on each line."
            ) from fault
        if not isinstance(line, dict) or ("workflow" in line) == ("job" in line):
            raise FarmError(
                f'Line {number} of {path.name} must have either "workflow" (a file in API format, or the workflow '
                'itself) or "job" (a job file), and may have "inputs", such as {"3.seed": 7}.'
            )
        sha = hashlib.sha256(f"{number} {json.dumps(line, sort_keys=True)}".encode()).hexdigest()
        found.append(Task(number=number, line=line, id=str(uuid.UUID(sha[:32]))))
    if not found:
        raise FarmError(f"{path.name} has no jobs. Write one JSON object on each line.")
    return found


class Journal:
    """What is finished, a line of JSON each, written to disk at once."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()

    def finished(self) -> dict[str, dict[str, Any]]:
        """Records by the id of their job; a line that a crash cut short does not count."""
        found: dict[str, dict[str, Any]] = {}
        if not self.path.is_file():
            return found
        for row in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(row)
                found[record["id"]] = record
            except (ValueError, LookupError, TypeError):
                continue
        return {key: record for key, record in found.items() if record.get("state") == "done"}

    def add(self, record: dict[str, Any]) -> None:
        """Write one, and wait until it is on disk."""
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(kw_only=True)
class Summary:
    """What a run of jobs came to."""

    jobs: int
    done: int = 0
    before: int = 0  # done by an earlier run
    failed: list[dict[str, Any]] = field(default_factory=list)
    retries: int = 0
    made: int = 0
    reused: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON data; failed jobs in their order."""
        return {**vars(self), "failed": sorted(self.failed, key=lambda record: record["line"])}


@dataclass(kw_only=True)
class JobRunner:
    """Gives jobs in order to targets as these become free."""

    tasks: Sequence[Task]
    targets: Sequence[Target]
    journal: Journal
    retries: int = 3
    stop: Callable[[], bool] = lambda: False
    report: Callable[[dict[str, Any]], None] = lambda event: None
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> Summary:
        """All jobs that the journal does not have."""
        finished, begun = self.journal.finished(), time.monotonic()
        self.summary = Summary(jobs=len(self.tasks))
        self.waiting = deque((task, 0) for task in self.tasks if task.id not in finished)
        self.summary.before = len(self.tasks) - len(self.waiting)
        self.lock, self.open, self.faults = threading.Lock(), len(self.waiting), list[BaseException]()
        threads = [threading.Thread(target=self._serve, args=(target,), daemon=True) for target in self.targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.faults:
            raise self.faults[0]
        self.summary.seconds, self.summary.stopped = round(time.monotonic() - begun, 3), self.open > 0
        return self.summary

    def _serve(self, target: Target) -> None:
        try:
            while self.open and not self.stop() and not self.faults:
                with self.lock:
                    task, tries = self.waiting.popleft() if self.waiting else (None, 0)
                if task is None:
                    self.sleep(0.05)  # another target's job may come back
                    continue
                self._try(target, task, tries)
        except BaseException as fault:  # noqa: BLE001 - the thread that waits raises it again
            self.faults.append(fault)

    def _try(self, target: Target, task: Task, tries: int) -> None:
        begun = time.monotonic()
        try:
            done = target.do(task, tries, self.stop)
        except StoppedError:
            return
        except RefusedError as fault:
            self._failed(task, target, str(fault))
        except FailedError as fault:
            if tries >= self.retries:
                self._failed(task, target, str(fault))
                return
            self.report({"event": "retry", "line": task.number, "target": target.name, "why": str(fault)})
            self._pause(min(FIRST_PAUSE * 2**tries, LONGEST_PAUSE))
            with self.lock:
                self.summary.retries += 1
                self.waiting.appendleft((task, tries + 1))
        else:
            record = {"id": task.id, "line": task.number, "state": "done", "target": target.name}
            record |= {"seconds": round(time.monotonic() - begun, 3), "outputs": done.outputs}
            self._closed(record | {"made": done.made, "reused": done.reused, "tries": tries + 1})

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.stop():
            self.sleep(min(0.1, seconds))

    def _failed(self, task: Task, target: Target, why: str) -> None:
        self._closed({"id": task.id, "line": task.number, "state": "failed", "target": target.name, "why": why})

    def _closed(self, record: dict[str, Any]) -> None:
        self.journal.add(record)
        with self.lock:
            self.open -= 1
            if record["state"] == "done":
                self.summary.done += 1
                self.summary.made += record["made"]
                self.summary.reused += record["reused"]
            else:
                self.summary.failed.append({"line": record["line"], "why": record["why"]})
        self.report({"event": record["state"], **{key: record[key] for key in record if key not in ("id", "state")}})


def in_order(tasks: Iterable[Task], journal: Journal) -> list[dict[str, Any]]:
    """The records of finished jobs, in the order of the file."""
    finished = journal.finished()
    return [finished[task.id] for task in tasks if task.id in finished]
