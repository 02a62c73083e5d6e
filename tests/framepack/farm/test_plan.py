"""A plan on a real Ray cluster of this machine: the bits of a local run, whatever dies on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from framepack.job_file import JobFile
from framepack.planning.request import Endpoint
from framepack.planning.video import make_plan
from framepack.schedule.presets import resolve
from framepack.shapes import builtin
from framepack.shapes.generate import Builtin
from framepack.vae.tiles import STREAMED, decode_tiled

pytest.importorskip("ray")
REPO = Path(__file__).parents[3]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
Event = dict[str, Any]


def bundle(path: Path, steps: int, gaps: int = 4, sections: int = 2) -> Path:
    """A job of the built-in model: key frames with so many sections between two."""
    model, apart = Builtin.load(), 9 * sections
    points = tuple(Endpoint(frame=apart * i, slot=f"image {i}") for i in range(1, gaps))
    plan = make_plan(resolve("inverted"), num_lat_frames=apart * gaps + 1, height=64, width=64, endpoints=points)
    words, told = model.encoded(["a red star moves up"]), {section.prompt for section in plan.sections}
    slots = {
        name: torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(sorted(plan.slots))
    }
    fmt, negative = model.latent_format, model.encoded([""])
    scale, shift = torch.tensor(fmt.std), torch.tensor(fmt.mean)
    prompts = dict.fromkeys(told | {None}, words)
    how: dict[str, Any] = {"slots": slots, "scale": scale, "shift": shift, "seed": 3, "steps": steps}
    JobFile(plan=plan, model=str(builtin.DIT), prompts=prompts, negative=negative, **how).save(path)
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "framepack", *map(str, arguments)]


def local(job: Path) -> torch.Tensor:
    """The latents of one process."""
    out = job.with_suffix(".local")
    subprocess.run(command("generate", out, "--job", job, "--threads", "1"), env=ENVIRONMENT, check=True, cwd=REPO)
    return load_file(out)["latent_tensor"]


def farmed(job: Path, *options: str, on_event: Callable[[Event, subprocess.Popen], None] | None = None) -> list[Event]:
    """The events of a run of two workers."""
    run = command("farm", "plan", job, "--json", *options)
    process = subprocess.Popen(run, env=ENVIRONMENT, cwd=REPO, stdout=subprocess.PIPE, text=True)
    events = []
    for line in process.stdout or ():
        if line.startswith("{"):  # Ray prints what it sees die
            events.append(json.loads(line))
        if on_event and line.startswith("{"):
            on_event(events[-1], process)
    assert process.wait() in (0, -signal.SIGKILL, 130)
    return events


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def test_two_workers_give_the_bits_of_one_process_though_one_of_them_dies(tmp_path: Path):
    job, killed = bundle(tmp_path / "job.safetensors", steps=6), list[int]()
    pids: dict[int, int] = {}

    def kill_once(event: Event, _: subprocess.Popen) -> None:
        if event["event"] == "process":
            pids[event["worker"]] = event["pid"]
        if event["event"] == "section" and not killed:
            killed.append(pids[event["worker"]])
            os.kill(killed[0], signal.SIGKILL)

    events = farmed(job, on_event=kill_once)
    assert len(of_kind(events, "death")) == 1
    assert sorted(event["section"] for event in of_kind(events, "section")) == list(range(8))
    assert torch.equal(load_file(job.with_suffix(".latent"))["latent_tensor"], local(job))


class Killer(threading.Thread):
    """Kills workers at random moments, so many times."""

    def __init__(self, times: int, seed: int):
        super().__init__(daemon=True)
        self.times, self.random, self.pids = times, random.Random(seed), list[int]()
        self.killed = 0

    def hear(self, event: Event, _: subprocess.Popen) -> None:
        if event["event"] == "process":
            self.pids.append(event["pid"])

    def run(self) -> None:
        while self.killed < self.times:
            time.sleep(self.random.uniform(0.5, 3))
            if self.pids:
                pid = self.pids.pop(self.random.randrange(len(self.pids)))
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.killed += 1


@pytest.mark.slow
def test_ten_deaths_of_workers_lose_no_section(tmp_path: Path):
    job = bundle(tmp_path / "job.safetensors", steps=40, sections=4)
    killer = Killer(10, seed=0)
    killer.start()
    events = farmed(job, on_event=killer.hear)
    started = [event["section"] for event in of_kind(events, "start")]
    deaths = [event["section"] for event in of_kind(events, "death")]
    for section in range(16):
        assert started.count(section) <= 1 + deaths.count(section)
    assert len(of_kind(events, "section")) == 16
    assert killer.killed >= 1
    assert torch.equal(load_file(job.with_suffix(".latent"))["latent_tensor"], local(job))


@pytest.mark.slow
def test_a_driver_that_dies_three_times_resumes_from_the_store(tmp_path: Path):
    job, made = bundle(tmp_path / "job.safetensors", steps=12), list[int]()

    def kill(event: Event, process: subprocess.Popen) -> None:
        if event["event"] == "section":
            made.append(event["section"])
            if len(made) in (2, 4, 6):
                process.kill()

    for _ in range(4):
        farmed(job, on_event=kill)
    assert sorted(set(made)) == list(range(8))
    assert len(made) <= 8 + 3
    job.with_suffix(".latent").unlink()
    again = farmed(job)
    assert len(of_kind(again, "stored")) == 8
    assert not of_kind(again, "section")
    assert torch.equal(load_file(job.with_suffix(".latent"))["latent_tensor"], local(job))


@pytest.mark.slow
def test_two_drivers_on_one_store_do_not_disturb_each_other(tmp_path: Path):
    job, store = bundle(tmp_path / "job.safetensors", steps=6), tmp_path / "store"
    outs = [tmp_path / f"{i}.latent" for i in range(2)]
    runs = [
        subprocess.Popen(
            command("farm", "plan", job, "--workers", "1", "--store", store, "--shared", "--out", out),
            env=ENVIRONMENT,
            cwd=REPO,
        )
        for out in outs
    ]
    assert [run.wait() for run in runs] == [0, 0]
    made = local(job)
    for out in outs:
        assert torch.equal(load_file(out)["latent_tensor"], made)
    assert len(list(store.glob("*.safetensors"))) == 8
    assert not list(store.glob("*.part"))


@pytest.mark.slow
def test_a_section_is_shared_by_two_processes_of_a_placement_group(tmp_path: Path):
    job = bundle(tmp_path / "job.safetensors", steps=2, gaps=1)
    farmed(job, "--workers", "1", "--ranks", "2")
    made, one = load_file(job.with_suffix(".latent"))["latent_tensor"], local(job)
    assert torch.allclose(made, one, rtol=0, atol=1e-5 * float(one.abs().max()))


@pytest.mark.slow
def test_a_video_is_decoded_and_saved_beside_the_sampling(tmp_path: Path):
    job, video = bundle(tmp_path / "job.safetensors", steps=2), tmp_path / "video.mp4"
    events = farmed(job, "--video", str(video), "--vae", str(builtin.VAE))
    assert of_kind(events, "video")[0]["frames"] == 289
    with av.open(str(video)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    raw = load_file(job.with_suffix(".latent"))["latent_tensor"]
    vae = Builtin.load().vae
    whole = decode_tiled(vae.decode, raw, STREAMED)[0].transpose(0, 1)
    expected = ((whole / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1)
    assert len(frames) == len(expected) == 289
    assert (torch.tensor(np.stack(frames)).float() - expected).abs().mean() < 3


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_good_order(tmp_path: Path):
    job = bundle(tmp_path / "job.safetensors", steps=12)

    def cancel(event: Event, process: subprocess.Popen) -> None:
        if event["event"] == "section":
            process.send_signal(signal.SIGINT)

    events = farmed(job, on_event=cancel)
    (said,) = of_kind(events, "cancelled")
    assert 1 <= said["finished"] < 8
    assert not job.with_suffix(".latent").exists()
