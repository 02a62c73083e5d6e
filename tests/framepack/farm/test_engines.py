"""Many job files on real engine actors: the latents of one process, each once; wrong input is named first."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from framepack.cli import main
from framepack.job_file import JobFile
from tests.framepack.farm.test_plan import ENVIRONMENT, REPO, bundle, command, local

pytest.importorskip("ray")


def jobs(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def done(path: Path, *options: str) -> dict[str, Any]:
    """The summary of a run of two engine actors."""
    run = command("farm", "jobs", path, "--workers", "2", *options)
    subprocess.run(run, env=ENVIRONMENT, cwd=REPO, check=True, timeout=300)
    return json.loads(path.with_suffix(".summary").read_text())


@pytest.mark.slow
def test_job_files_on_engine_actors_have_the_latents_of_one_process(tmp_path: Path):
    job = bundle(tmp_path / "job.safetensors", steps=2, gaps=2)
    lines = [{"job": str(job), "seed": seed, "out": str(tmp_path / f"{seed}.latent")} for seed in (3, 4, 3, 5)]
    lines[2]["out"] = str(tmp_path / "again.latent")
    told = done(path := jobs(tmp_path, *lines))
    assert (told["jobs"], told["done"], told["failed"], told["retries"]) == (4, 4, [], 0)
    assert told["made"] + told["reused"] == 16
    assert [row["line"] for row in told["results"]] == [1, 2, 3, 4]
    other = tmp_path / "other.safetensors"
    replace(JobFile.load(job), seed=4).save(other)
    third, fourth = local(job), local(other)
    for out, alone in (("3", third), ("again", third), ("4", fourth)):
        assert torch.equal(load_file(tmp_path / f"{out}.latent")["latent_tensor"], alone)
    again = done(path)
    assert (again["before"], again["done"]) == (4, 0)


def test_job_files_that_cannot_be_done_are_named_before_the_first(tmp_path: Path, capsys: pytest.CaptureFixture):
    job = bundle(tmp_path / "job.safetensors", steps=2, gaps=1)
    gone = bundle(tmp_path / "gone.safetensors", steps=2, gaps=1)
    replace(JobFile.load(gone), model=str(tmp_path / "lost.safetensors")).save(gone)
    for line, named in (
        ({"job": str(tmp_path / "no.safetensors")}, "There is no job file"),
        ({"workflow": {}}, "Line 2 is a workflow"),
        ({"job": str(job), "out": str(tmp_path / "no" / "a.latent")}, "does not exist. Make it first"),
        ({"job": str(gone)}, "does not have the file"),
    ):
        path = jobs(tmp_path, {"job": str(job)}, line)
        assert main(["farm", "jobs", str(path), "--workers", "1"]) == 2
        assert named in capsys.readouterr().err
        assert not path.with_suffix(".journal").exists()
    assert not job.with_suffix(".latent").exists()
