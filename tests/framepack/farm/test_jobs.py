"""Many jobs: in order, each once, tried again where that may help, and resumed after a stop."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from framepack.farm.facts import FarmError
from framepack.farm.jobs import Done, FailedError, JobRunner, Journal, RefusedError, Task, in_order, read_tasks
from framepack.farm.targets import workflow_of


@dataclass
class Counter:
    """Does jobs by counting them; `fails` are attempts that fail, by line."""

    name: str = "here"
    fails: dict[int, int] = field(default_factory=dict)
    refuses: frozenset[int] = frozenset()
    ran: list[int] = field(default_factory=list)

    def do(self, task: Task, tries: int, stop: Callable[[], bool]) -> Done:
        self.ran.append(task.number)
        if task.number in self.refuses:
            raise RefusedError("no such node")
        if tries < self.fails.get(task.number, 0):
            raise FailedError("out of memory")
        return Done(target=self.name, made=1, reused=2)


def jobs(folder: Path, num: int) -> list[Task]:
    lines = [json.dumps({"workflow": {"3": {"inputs": {}}}, "inputs": {"3.seed": i}}) for i in range(num)]
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    return read_tasks(folder / "jobs.jsonl")


def runner(folder: Path, tasks: list[Task], *targets: Counter, **how: object) -> JobRunner:
    return JobRunner(tasks=tasks, targets=targets, journal=Journal(folder / "journal"), sleep=lambda _: None, **how)


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
