"""A plan on a real Ray cluster of this machine: the bits of a local run, whatever dies on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
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
    numbers = [event["worker"] for event in of_kind(events, "process")]
    assert len(numbers) == len(set(numbers)) >= 2  # a new worker is none of those before
    assert sorted(event["section"] for event in of_kind(events, "section")) == list(range(8))
    assert torch.equal(load_file(job.with_suffix(".latent"))["latent_tensor"], local(job))


@dataclass
class Killer:
    """Kills workers at random moments of the sections that they sample, `times` in all, and drivers, `drivers` in all.

    A driver dies after its third section; then it is started again.
    """

    times: int
    drivers: int
    random: random.Random
    killed: list[int] = field(default_factory=list)
    pids: dict[int, int] = field(default_factory=dict)
    timers: list[threading.Timer] = field(default_factory=list)
    finished: int = 0

    def hear(self, event: Event, driver: subprocess.Popen) -> None:
        kind = event["event"]
        if kind == "process":
            self.pids[event["worker"]] = event["pid"]
        if kind == "start" and len(self.timers) < self.times and self.random.random() < 0.6:
            pid = self.pids[event["worker"]]
            self.timers.append(threading.Timer(self.random.uniform(0, 1.2), self.kill, [pid]))
            self.timers[-1].start()
        self.finished += kind == "section"
        if self.finished == 3 and self.drivers:
            self.drivers, self.finished = self.drivers - 1, 0
            self.pids.clear()
            driver.kill()

    def kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)
        except ProcessLookupError:  # it died with its driver
            self.timers.pop()


@pytest.mark.slow
def test_ten_deaths_of_workers_and_three_of_drivers_lose_no_section(tmp_path: Path):
    job, killer = bundle(tmp_path / "job.safetensors", steps=24, sections=6), Killer(10, 3, random.Random(0))
    runs = list[list[Event]]()
    while not job.with_suffix(".latent").exists():
        runs.append(farmed(job, on_event=killer.hear))
    assert len(runs) == 1 + 3
    assert len(killer.killed) == 10
    events = [event for run in runs for event in run]
    started = Counter(event["section"] for event in of_kind(events, "start"))
    deaths = Counter(event["section"] for event in of_kind(events, "death"))
    with_driver = Counter(section for run in runs[:-1] for section in lost_with_driver(run))
    for section in range(24):
        assert 1 <= started[section] <= 1 + deaths[section] + with_driver[section]
    assert Counter(event["section"] for event in of_kind(events, "section")) == Counter(range(24))
    assert torch.equal(load_file(job.with_suffix(".latent"))["latent_tensor"], local(job))
    sys.stderr.write(f"{sum(started.values())} starts of 24 sections, {len(of_kind(events, 'death'))} deaths seen\n")


def lost_with_driver(run: list[Event]) -> set[int]:
    """Sections that workers sampled when their driver died, and they with it."""
    at_work: dict[int, int] = {}
    for event in run:
        if event["event"] == "start":
            at_work[event["worker"]] = event["section"]
        if event["event"] in ("section", "death"):
            at_work.pop(event["worker"], None)
    return set(at_work.values())


@pytest.mark.slow
def test_a_finished_run_comes_from_the_store_alone(tmp_path: Path):
    job = bundle(tmp_path / "job.safetensors", steps=2, gaps=2)
    made = {event["section"]: event["take"] for event in of_kind(farmed(job), "section")}
    out = job.with_suffix(".latent")
    first = load_file(out)["latent_tensor"]
    out.unlink()
    again = farmed(job)
    assert {event["section"]: event["take"] for event in of_kind(again, "stored")} == made
    assert not of_kind(again, "section")
    assert torch.equal(load_file(out)["latent_tensor"], first)
    assert all(list(job.with_suffix(".sections").glob(f"{take}*.safetensors")) for take in made.values())


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
def test_a_section_is_sampled_again_where_one_of_its_two_processes_dies(tmp_path: Path):
    job, pids = bundle(tmp_path / "job.safetensors", steps=30, gaps=1), list[int]()

    def kill_once(event: Event, _: subprocess.Popen) -> None:
        if event["event"] == "process":
            pids.append(event["pid"])
        if event["event"] == "step" and event["step"] > 2 and len(pids) == 2:
            os.kill(pids[1], signal.SIGKILL)
            pids.append(0)

    events = farmed(job, "--workers", "1", "--ranks", "2", on_event=kill_once)
    assert len(of_kind(events, "death")) == 1
    made, one = load_file(job.with_suffix(".latent"))["latent_tensor"], local(job)
    assert torch.allclose(made, one, rtol=0, atol=1e-5 * float(one.abs().max()))


@pytest.mark.slow
def test_a_video_is_decoded_and_saved_beside_the_sampling(tmp_path: Path):
    job, video = bundle(tmp_path / "job.safetensors", steps=2, gaps=2), tmp_path / "video.mp4"
    events = farmed(job, "--video", str(video), "--vae", str(builtin.VAE))
    assert of_kind(events, "video")[0]["frames"] == 145
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []
    with av.open(str(video)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    raw = load_file(job.with_suffix(".latent"))["latent_tensor"]
    vae = Builtin.load().vae
    whole = decode_tiled(vae.decode, raw, STREAMED)[0].transpose(0, 1)
    expected = ((whole / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1)
    assert len(frames) == len(expected) == 145
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
