"""Many jobs on real hosts: each runs once, in order, and a stopped run goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from framepack.farm.jobs import JobRunner, Journal, read_tasks
from framepack.farm.targets import Host as Target
from tests.host.conftest import Graph, node_of
from tools.client import Workflow, edited
from tools.host import REPO, Host, running


@pytest.fixture
def trivial(shipped: Workflow) -> Workflow:
    """One section of one step, up to latents."""
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    short = edited(shipped, {("EndpointPlanner", "seconds"): 0.4, ("SectionSampler", "steps"): 1})
    graph = Graph({n: deepcopy(node) for n, node in short.items() if node["class_type"] not in skipped})
    graph.add("SaveLatent", samples=[node_of(short, "SectionSampler"), 0], filename_prefix="jobs")
    return graph.workflow


def jobs(folder: Path, workflow: Workflow, num: int) -> Path:
    """A file of so many jobs, each with a seed and a file name of its own."""
    (folder / "flow.json").write_text(json.dumps(workflow))
    sampler, save = node_of(workflow, "SectionSampler"), node_of(workflow, "SaveLatent")
    lines = [
        {
            "workflow": str(folder / "flow.json"),
            "inputs": {f"{sampler}.seed": seed, f"{save}.filename_prefix": f"jobs/{seed:04}"},
        }
        for seed in range(num)
    ]
    (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "jobs.jsonl"


def test_a_stopped_run_of_jobs_goes_on_and_runs_none_twice(alive: Host, trivial: Workflow, tmp_path: Path):
    path, target = jobs(tmp_path, trivial, 5), Target(alive.url)
    target.check()
    journal, seen = Journal(tmp_path / "jobs.journal"), list[dict[str, Any]]()
    summary = JobRunner(
        tasks=read_tasks(path), targets=[target], journal=journal, report=seen.append, stop=lambda: len(seen) >= 2
    ).run()
    assert (summary.done, summary.stopped) == (2, True)
    records = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [(record["line"], record["state"]) for record in records] == [
        *((1, "begun"), (1, "done"), (2, "begun"), (2, "done"))
    ]
    journal.path.write_text("".join(json.dumps(record) + "\n" for record in records[:3]))  # a crash before the last
    command = [sys.executable, "-m", "framepack", "farm", "jobs", str(path), "--host", alive.url]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "jobs.summary").read_text())
    assert (told["jobs"], told["before"], told["done"], told["failed"]) == (5, 1, 4, [])
    assert [row["line"] for row in told["results"]] == [1, 2, 3, 4, 5]
    assert len(list((alive.base / "output" / "jobs").glob("*.latent"))) == 5  # the second ran once


@pytest.mark.slow
def test_a_thousand_jobs_over_two_hosts_run_once_each_in_flat_memory(trivial: Workflow, tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        hosts, peaks = (one, two), dict[int, list[int]]()

        def watch(event: dict[str, Any]) -> None:
            if event["event"] == "done" and event["line"] in (300, 1000):
                peaks[event["line"]] = [host.peak_memory for host in hosts]

        path = jobs(tmp_path, trivial, 1000)
        targets = [Target(host.url) for host in hosts]
        how = {"tasks": read_tasks(path), "journal": Journal(tmp_path / "journal"), "report": watch}
        summary = JobRunner(targets=targets, **how).run()
        assert (summary.done, summary.failed) == (1000, [])
        names = [file.name for host in hosts for file in (host.base / "output" / "jobs").glob("*.latent")]
        assert len(names) == len({name[:4] for name in names}) == 1000
        sys.stderr.write(f"{summary.seconds} s, {summary.retries} retries, memory {peaks}\n")
        for early, late in zip(peaks[300], peaks[1000], strict=True):
            assert late < 1.1 * early
