"""Many jobs: in order, each once, tried again where that may help, and resumed after a stop."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from framepack.farm.facts import FarmError
from framepack.farm.jobs import (
    AwayError,
    Done,
    FailedError,
    JobRunner,
    Journal,
    RefusedError,
    StoppedError,
    Task,
    in_order,
    read_tasks,
)
from framepack.farm.targets import Host, models_of, workflow_of


@dataclass
class Counter:
    """Does jobs by counting them; `fails` are attempts that fail, by line. After `dies` jobs it is away, or stopped."""

    name: str = "here"
    fails: dict[int, int] = field(default_factory=dict)
    refuses: frozenset[int] = frozenset()
    dies: int = 10**6
    stopped: bool = False
    returns: bool = False
    ran: list[int] = field(default_factory=list)
    attempts: list[tuple[int, int]] = field(default_factory=list)

    def ready(self) -> bool:
        return True

    def answers(self) -> bool:
        return self.returns

    def do(self, task: Task, attempt: int, stop: Callable[[], bool]) -> Done:
        if len(self.ran) >= self.dies:
            self.dies = 10**6 if self.returns else self.dies
            raise StoppedError if self.stopped else AwayError("no answer")
        self.ran.append(task.number)
        self.attempts.append((task.number, attempt))
        if task.number in self.refuses:
            raise RefusedError("no such node")
        if attempt < self.fails.get(task.number, 0):
            raise FailedError("out of memory")
        time.sleep(0.001)
        return Done(target=self.name, made=1, reused=2)


def jobs(folder: Path, num: int) -> list[Task]:
    lines = [json.dumps({"workflow": {"3": {"inputs": {}}}, "inputs": {"3.seed": i}}) for i in range(num)]
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    return read_tasks(folder / "jobs.jsonl")


def runner(folder: Path, tasks: list[Task], *targets: Counter, **how: object) -> JobRunner:
    return JobRunner(tasks=tasks, targets=targets, journal=Journal(folder / "journal"), first_pause=0.01, **how)


def test_every_job_runs_once_and_results_keep_the_order(tmp_path: Path):
    tasks, targets = jobs(tmp_path, 200), [Counter("one"), Counter("two")]
    summary = runner(tmp_path, tasks, *targets).run()
    assert sorted(targets[0].ran + targets[1].ran) == list(range(1, 201))
    assert (summary.done, summary.retries, summary.reused, summary.stopped) == (200, 0, 400, False)
    assert [record["line"] for record in in_order(tasks, Journal(tmp_path / "journal"))] == list(range(1, 201))
    assert targets[0].ran == sorted(targets[0].ran)


def test_a_job_that_fails_is_tried_again_and_one_that_is_rejected_is_not(tmp_path: Path):
    tasks, target = jobs(tmp_path, 4), Counter(fails={1: 2, 3: 99}, refuses=frozenset({2}))
    summary = runner(tmp_path, tasks, target, retries=2).run()
    assert target.ran.count(1) == 3
    assert target.ran.count(2) == 1
    assert target.ran.count(3) == 3
    assert summary.retries == 4
    assert [record["line"] for record in summary.to_dict()["failed"]] == [2, 3]
    assert summary.done == 2


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path):
    tasks, first, asked = jobs(tmp_path, 50), Counter(), threading.Event()
    summary = runner(tmp_path, tasks, first, stop=lambda: len(first.ran) >= 20 or asked.is_set()).run()
    assert summary.stopped
    with (tmp_path / "journal").open("a") as journal:
        journal.write('{"id": "cut sh')  # by a crash
    second = Counter()
    summary = runner(tmp_path, tasks, second).run()
    assert (summary.before, summary.done, summary.stopped) == (20, 30, False)
    assert sorted(first.ran + second.ran) == list(range(1, 51))


def test_a_record_after_one_that_a_crash_cut_short_is_read(tmp_path: Path):
    journal = Journal(tmp_path / "journal")
    journal.path.write_text('{"id": "cut sh')
    for number in range(2):
        journal.add({"id": str(number), "state": "done"})
    assert list(journal.finished()) == ["0", "1"]


@pytest.mark.parametrize("returns", [False, True])
def test_the_jobs_of_a_target_that_is_away_are_done_by_another(tmp_path: Path, returns: bool):
    tasks, gone, there = jobs(tmp_path, 60), Counter("gone", dies=5, returns=returns), Counter("there")
    summary = runner(tmp_path, tasks, gone, there, retries=0).run()
    assert sorted(gone.ran + there.ran) == list(range(1, 61))
    assert (summary.done, summary.failed) == (60, [])
    assert (len(gone.ran) > 5) == returns


def test_a_run_ends_where_every_target_is_away(tmp_path: Path):
    with pytest.raises(FarmError, match="the same command goes on"):
        runner(tmp_path, jobs(tmp_path, 9), Counter("one", dies=2), Counter("two", dies=2)).run()
    summary = runner(tmp_path, jobs(tmp_path, 9), Counter("one")).run()
    assert (summary.before, summary.done) == (4, 5)


def test_what_a_target_had_begun_is_asked_of_the_same_target_again(tmp_path: Path):
    tasks, first = jobs(tmp_path, 4), Counter("two", dies=1, stopped=True)
    record = {"line": 2, "target": "two", "attempt": 3, "state": "begun", "id": tasks[1].id}
    Journal(tmp_path / "journal").add(record)  # by a driver that was killed
    one, two = Counter("one"), Counter("two")
    runner(tmp_path, tasks, one, two).run()
    assert (2, 3) in two.attempts
    assert 2 not in one.ran
    assert Tally(one.ran + two.ran) == Tally(range(1, 5))
    assert first.ran == []


def test_a_job_that_was_stopped_or_failed_for_good_is_tried_afresh(tmp_path: Path):
    tasks = jobs(tmp_path, 2)
    summary = runner(tmp_path, tasks, Counter(fails={1: 2}), retries=1).run()
    assert [record["line"] for record in summary.failed] == [1]
    again = Counter(fails={1: 2})
    assert runner(tmp_path, tasks, again).run().done == 1
    assert again.attempts == [(1, 2)]  # an id that no host has a failure of


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"workflow": "a", "job": "b"}'])
def test_a_line_that_is_no_job_is_named(tmp_path: Path, text: str):
    (tmp_path / "jobs.jsonl").write_text(text)
    with pytest.raises(FarmError, match=r"jobs\.jsonl"):
        read_tasks(tmp_path / "jobs.jsonl")


def test_inputs_are_put_into_the_workflow(tmp_path: Path):
    task = jobs(tmp_path, 2)[1]
    assert workflow_of(task) == {"3": {"inputs": {"seed": 1}}}
    with pytest.raises(RefusedError, match="4.seed"):
        workflow_of(Task(number=1, id=task.id, line={"workflow": {"3": {"inputs": {}}}, "inputs": {"4.seed": 1}}))


def test_jobs_that_write_one_file_are_rejected_before_any_begins(tmp_path: Path):
    (tmp_path / "jobs.jsonl").write_text('{"job": "a.safetensors", "seed": 1}\n{"job": "a.safetensors", "seed": 2}')
    with pytest.raises(FarmError, match="Lines 1 and 2 both write"):
        models_of(read_tasks(tmp_path / "jobs.jsonl"))


@dataclass
class Slow:
    """What a host answers that queues a job and whose answer is lost on the way."""

    queued: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def get(self, path: str) -> object:
        if path == "/queue":
            held, self.queued = self.queued, []
            self.ended += held
            return {"queue_running": [[0, id] for id in held], "queue_pending": []}
        id = path.rpartition("/")[2]
        return {id: {"status": {"status_str": "success"}, "outputs": {}}} if id in self.ended else {}

    def post(self, path: str, body: dict) -> dict:
        self.queued.append(body["prompt_id"])
        raise TimeoutError


def test_a_host_whose_answer_is_lost_is_not_given_the_job_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host, slow = Host("127.0.0.1:1"), Slow()
    monkeypatch.setattr(host, "_get", slow.get)
    monkeypatch.setattr(host, "_post", slow.post)
    host.do(jobs(tmp_path, 1)[0], 0, lambda: False)
    assert len(slow.ended) == 1
