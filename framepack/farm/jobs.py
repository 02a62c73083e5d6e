"""Many jobs over several targets, such as hosts: in order, with retries, and a journal that a run resumes from."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from .facts import FarmError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a retry; each is twice the one before
WAITING = 3.0  # seconds after which a target that cannot begin yet is reported


class RefusedError(FarmError):
    """A job that no retry would help."""


class FailedError(FarmError):
    """A job that failed and may succeed when it is tried again."""


class AwayError(FarmError):
    """A target that does not answer; its job may be done by another."""


class StoppedError(Exception):
    """The run was stopped while a job ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job: a line of the file by number, its contents, and an id that a resumed run finds it by."""

    number: int
    line: dict[str, Any]
    id: str

    def attempt(self, number: int) -> str:
        """An id of one attempt."""
        return str(uuid.uuid5(uuid.UUID(self.id), str(number)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A job that is to be done: its attempt by number, how often it failed in this run, and not before when.

    `target` has begun this attempt in an earlier run, and may have gone on with it.
    """

    task: Task
    attempt: int = 0
    failures: int = 0
    target: str | None = None
    due: float = 0.0

    @classmethod
    def after(cls, task: Task, record: dict[str, Any] | None) -> Turn:
        """What is next after a job's last record in the journal."""
        if record is None:
            return cls(task=task)
        number = int(record.get("attempt", 0))
        if record["state"] == "begun":
            return cls(task=task, attempt=number, target=record["target"])
        return cls(task=task, attempt=number + 1)


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

    def ready(self) -> bool:
        """Can it begin a job now? Raises FarmError where it never can."""
        ...

    def answers(self) -> bool:
        """Is a target that was away there again?"""
        ...

    def do(self, task: Task, attempt: int, stop: Callable[[], bool]) -> Done:
        """Do it. Raises RefusedError, FailedError, AwayError, StoppedError."""
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
    """What has begun and what is finished, a line of JSON each, written to disk at once."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()

    def last(self) -> dict[str, dict[str, Any]]:
        """The last record of each job, by its id; a line that a crash cut short does not count."""
        found: dict[str, dict[str, Any]] = {}
        if not self.path.is_file():
            return found
        for row in self.path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, LookupError, TypeError):
                record = json.loads(row)
                found[record["id"]] = {"state": "", **record}
        return found

    def finished(self) -> dict[str, dict[str, Any]]:
        """Records of finished jobs by id."""
        return {key: record for key, record in self.last().items() if record["state"] == "done"}

    def add(self, record: dict[str, Any]) -> None:
        """Write one, and wait until it is on disk. It begins a line, whatever a crash left."""
        with self.lock, self.path.open("a+b") as file:
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
            cut = size and file.read(1) != b"\n"
            file.write(b"\n" * bool(cut) + json.dumps(record).encode() + b"\n")
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
    first_pause: float = FIRST_PAUSE

    def run(self) -> Summary:
        """All jobs that the journal does not have. Raises FarmError where no target answers any more."""
        last, begun = self.journal.last(), time.monotonic()
        turns = [Turn.after(task, last.get(task.id)) for task in self.tasks]
        there = {target.name for target in self.targets}
        self.waiting = [
            turn if turn.target in there else replace(turn, target=None)
            for turn in turns
            if last.get(turn.task.id, {}).get("state") != "done"
        ]
        self.open = len(self.waiting)
        self.summary = Summary(jobs=len(self.tasks), before=len(self.tasks) - self.open)
        self.lock, self.away, self.faults = threading.Lock(), set[int](), list[BaseException]()
        threads = [threading.Thread(target=self._serve, args=(target,), daemon=True) for target in self.targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.faults:
            raise self.faults[0]
        self.summary.seconds, self.summary.stopped = round(time.monotonic() - begun, 3), self.open > 0
        return self.summary

    @property
    def _goes_on(self) -> bool:
        return self.open > 0 and not self.stop() and not self.faults

    def _serve(self, target: Target) -> None:
        """A target's thread."""
        try:
            self._wait_for(target, target.ready)
            while self._goes_on:
                if (turn := self._next(target)) is None:
                    self.sleep(0.05)  # another target's job may come back
                else:
                    self._try(target, turn)
                    self._wait_for(target, target.ready)
        except BaseException as fault:  # noqa: BLE001 - the thread that waits raises it again
            self.faults.append(fault)

    def _wait_for(self, target: Target, there: Callable[[], bool]) -> None:
        """Until the target can go on; a wait that is long is reported once."""
        begun, told = time.monotonic(), False
        while self._goes_on and not there():
            if not told and time.monotonic() - begun > WAITING:
                told = True
                self.report({"event": "waiting", "target": target.name})
            self.sleep(0.1)

    def _next(self, target: Target) -> Turn | None:
        """The first job that this target may begin now."""
        now = time.monotonic()
        with self.lock:
            for place, turn in enumerate(self.waiting):
                if turn.due <= now and turn.target in (None, target.name):
                    return self.waiting.pop(place)
        return None

    def _try(self, target: Target, turn: Turn) -> None:
        begun, task = time.monotonic(), turn.task
        record = {"id": task.id, "line": task.number, "target": target.name, "attempt": turn.attempt}
        self.journal.add(record | {"state": "begun"})
        try:
            done = target.do(task, turn.attempt, self.stop)
        except StoppedError:
            self.journal.add(record | {"state": "stopped"})
        except RefusedError as fault:
            self._closed(record | {"state": "failed", "why": str(fault)})
        except AwayError as fault:
            self._left(target, replace(turn, attempt=turn.attempt + 1, target=None), str(fault))
        except FailedError as fault:
            if turn.failures >= self.retries:
                self._closed(record | {"state": "failed", "why": str(fault)})
            else:
                self._again(record, turn, str(fault))
        else:
            record |= {"state": "done", "seconds": round(time.monotonic() - begun, 3), "outputs": done.outputs}
            self._closed(record | {"made": done.made, "reused": done.reused, "tries": turn.failures + 1})

    def _again(self, record: dict[str, Any], turn: Turn, why: str) -> None:
        """A job that failed comes back, after a pause; its target goes on with the next one."""
        self.journal.add(record | {"state": "retry", "why": why})
        self.report({"event": "retry", "line": turn.task.number, "target": record["target"], "why": why})
        due = time.monotonic() + min(self.first_pause * 2**turn.failures, LONGEST_PAUSE)
        how = {"attempt": turn.attempt + 1, "failures": turn.failures + 1, "target": None}
        with self.lock:
            self.summary.retries += 1
            self.waiting.insert(0, replace(turn, **how, due=due))

    def _left(self, target: Target, turn: Turn, why: str) -> None:
        """A target is away: others do its jobs until it answers again. Raises FarmError where all are away."""
        self.report({"event": "away", "line": turn.task.number, "target": target.name, "why": why})
        with self.lock:
            self.away.add(id(target))
            mine = [replace(each, target=None) if each.target == target.name else each for each in self.waiting]
            self.waiting = [turn, *mine]
            if len(self.away) == len(self.targets):
                raise FarmError(f"{why} No other is left. What is finished is kept; the same command goes on.")
        self._wait_for(target, target.answers)
        with self.lock:
            self.away.discard(id(target))

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
        told = {key: record[key] for key in record if key not in ("id", "state", "attempt")}
        self.report({"event": record["state"], **told})


def in_order(tasks: Iterable[Task], journal: Journal) -> list[dict[str, Any]]:
    """The records of finished jobs, in the order of the file."""
    finished = journal.finished()
    return [finished[task.id] for task in tasks if task.id in finished]
