"""What an actor does: it loads a job's model once and samples the sections that it is given, with the engine."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from socket import gethostname, socket
from typing import Any

import torch.distributed as dist
from torch import Tensor

from .. import pipeline
from ..job_file import JobFile
from ..job_run import JobRun, Place
from ..planning.outside import outside_of
from ..store.section_store import SectionStore
from .facts import Facts, check, facts_here

ENDLESS = 2**62  # bytes of a store from which nothing is removed


def job_of(bundle: bytes) -> JobFile:
    """A job from its file's bytes. Raises CheckpointError, PlanError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.safetensors"
        file.write_bytes(bundle)
        return JobFile.load(file)


class Watch(pipeline.Quiet):
    """The progress of the section that is being sampled, which another thread of the actor tells."""

    def __init__(self) -> None:
        self.at: tuple[int, int, int] | None = None  # section, steps done, steps
        self.preview: Tensor | None = None

    def begin(self, job: pipeline.Job) -> Callable[..., None]:
        """A section is about to be sampled."""
        steps = len(job.sigmas) - 1
        self.at = job.index, 0, steps

        def step(number: int, x: Tensor, x0: Tensor) -> None:
            self.at, self.preview = (job.index, number + 1, steps), x0

        return step

    def loaded(self, job: pipeline.Job) -> None:
        """It was in the store: another worker of another run made it in the meantime."""
        self.at = None


class Worker:
    """One process of a crew, whose processes share a section; mostly a crew has one. `place` is a Place's fields."""

    def __init__(self, place: dict[str, Any], rank: int, world: int, store: str | None):
        self.place, self.rank, self.world = Place(**place), rank, world
        self.store = SectionStore(Path(store), ENDLESS) if store else None
        self.watch = Watch()
        self.run: JobRun | None = None

    def address(self) -> tuple[str, int]:
        """An address that the cluster's other machines know, and a free port there: where the crew meets."""
        with socket() as free:
            free.bind(("", 0))
            return import_module("ray.util").get_node_ip_address(), free.getsockname()[1]

    def load(
        self, bundle: bytes, model: str, facts: dict[str, Any], probe: str | None, meeting: tuple[str, int] | None
    ) -> int:
        """Read the job, meet the crew's other processes, load the model. This process's id.

        Raises FarmError where this machine, which may have joined the cluster later, is not like the others.
        """
        known, here = Facts(**facts), Facts(**facts_here(gethostname(), asdict(self.place), model, probe))
        check([known, here], model, self.store and self.store.folder, known.store if probe else None)
        if self.world > 1 and meeting and not dist.is_initialized():
            backend = "nccl" if self.place.device.startswith("cuda") else "gloo"
            where = f"tcp://{meeting[0]}:{meeting[1]}"
            dist.init_process_group(backend, init_method=where, rank=self.rank, world_size=self.world)
        self.run = JobRun.of(replace(job_of(bundle), model=model), self.place)
        return os.getpid()

    def sample(self, index: int, needs: list[int], *made: Any) -> tuple[float, Tensor | str]:
        """The seconds that a section took, and its latents, or their key where the store is shared.

        `made` are the latents of the sections in `needs`, or their keys. A section that is in the store is not made.
        """
        assert self.run is not None, "load comes first"
        job, begun, keys = self.run.job, time.perf_counter(), []
        timeline: dict[int | str, Tensor] = dict(job.anchors())
        for need, latents in zip(needs, made, strict=True):
            found = self._stored(latents) if isinstance(latents, str) else latents
            timeline |= pipeline.by_frame(job.plan.sections[need], found)
        sampler = _Noting(run=self.run, keys=keys)
        how: dict[str, Any] = {"like": job.like, "first": index, "store": self.store, "progress": self.watch}
        how["outside"] = outside_of(job.plan)
        sections = [job.plan.sections[index]]
        ((_, latents),) = pipeline.sample_sections(sections, timeline, sampler, self.run.settings, **how)
        self.watch.at = None
        return time.perf_counter() - begun, keys[0] if self.store else latents

    def _stored(self, key: str) -> Tensor:
        found = self.store.get(key) if self.store else None
        if found is None:
            raise RuntimeError(f"The shared store has lost the section {key}.")
        return found

    def progress(self, preview: bool = False) -> tuple[tuple[int, int, int] | None, Tensor | None]:
        """Section, steps done and steps of what is being sampled; with `preview` its guessed latents ``b c t h w``."""
        return self.watch.at, self.watch.preview if preview else None


class _Noting:
    """A sampler that notes the keys that the engine asks for."""

    def __init__(self, run: JobRun, keys: list[str]):
        self.run, self.keys = run, keys
        self.sample, self.normalised, self.solver, self.about = run.sample, run.normalised, run.solver, run.about

    def key(self, job: pipeline.Job) -> str:
        """The section's key."""
        self.keys.append(self.run.key(job))
        return self.keys[-1]


class JobDoer:
    """An actor that samples whole job files. Sections go through the store; models stay loaded while they are alike."""

    def __init__(self, place: dict[str, Any], store: str):
        self.place, self.store = Place(**place), SectionStore(Path(store), ENDLESS)
        self.held: tuple[str, JobRun] | None = None

    def here(self) -> bool:
        """It has a machine."""
        return True

    def do(self, bundle: bytes, seed: int | None) -> tuple[int, int, Tensor]:
        """How many of a job's sections were made, how many reused, and the video's latents, normalised."""
        job = job_of(bundle)
        job = job if seed is None else replace(job, seed=seed)
        run, watch = self._run(job), Counting()
        how: dict[str, Any] = {"like": job.like, "store": self.store, "progress": watch}
        latents = pipeline.generate(job.plan, job.anchors(), run, run.settings, **how)
        return watch.made, watch.reused, latents

    def _run(self, job: JobFile) -> JobRun:
        run = self.held[1].of_same(job) if self.held and self.held[0] == job.model else JobRun.of(job, self.place)
        self.held = job.model, run
        return run


class Counting(pipeline.Quiet):
    """Counts sections."""

    made = reused = 0

    def begin(self, job: pipeline.Job) -> None:
        """One is sampled."""
        self.made += 1

    def loaded(self, job: pipeline.Job) -> None:
        """One was in the store."""
        self.reused += 1
