"""A job file on one machine: its model loaded, its sections sampled by the engine, and each known by its contents."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from . import pipeline
from .checkpoints.files import identity
from .checkpoints.model_file import ModelFile
from .errors import FramePackError
from .job_file import JobFile
from .models.backbones import Backbone, backbone_with
from .models.packed import PackedDiT
from .nn.attention import attention_named
from .sampling.denoiser import DitDenoiser
from .sampling.solvers import Callback
from .sampling.staged import solver_named
from .store.digest import digest
from .training.trainees import dit_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMAT = 1  # raise it when the same job begins to give other latents


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how a job's model runs. `attention` is a name of the registry, `threads` those of a CPU's products."""

    device: str = "cpu"
    dtype: str = "fp32"
    attention: str = "sdpa"
    threads: int | None = None

    @property
    def name(self) -> str:
        """The device's model: results are equal to the bit on devices of one model only. Raises RuntimeError."""
        if self.device.startswith("cuda"):
            return torch.cuda.get_device_name(torch.device(self.device))
        return cpu_name() if self.device == "cpu" else f"{cpu_name()} {self.device}"

    def load(self, path: Path | str) -> PackedDiT:
        """A job's model. Raises FramePackError for a device that is not there, CheckpointError for another file."""
        if self.threads:
            torch.set_num_threads(self.threads)
        attention = attention_named(self.attention)
        try:
            dit = dit_of(path, DTYPES[self.dtype]).to(self.device)
        except (RuntimeError, AssertionError) as fault:  # what torch raises for a device that it lacks
            raise FramePackError(
                f"The model does not load on the device {self.device!r} ({str(fault)[:200]}). Choose another device, "
                "such as cpu, or a smaller dtype."
            ) from fault
        dit.attention = attention
        if dit.ranks.world > 1:
            dit.ranks.check_heads(dit.spec.heads)
        return dit


def cpu_name() -> str:
    """The processor's model, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def model_identity(path: Path | str) -> str:
    """A digest of a checkpoint, the one that nodes store its sections under. Raises CheckpointError."""
    file = ModelFile.open(path)
    return identity(file.checkpoint.name, file.checkpoint.tensors(), stated=file.stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How a job's sections are known: by model, conditioning, noise, history, device and versions.

    `place` names the device's model as its device; `model` is the model's identity.
    """

    job: JobFile
    place: Place
    model: str
    ranks: int = 1

    def key(self, job: pipeline.Job) -> str:
        """A digest of all that determines a section's bits."""
        parts = {
            "format": FORMAT,
            "model": self.model,
            "place": asdict(self.place),
            "ranks": self.ranks,
            "torch": version("torch"),
            "positive": self.job.prompts[job.section.prompt],
            "negative": self.job.negative,
            "solver": self.job.solver,
            "led": asdict(self.job.guidance),
            "noise": job.noise,
            "sigmas": job.sigmas,
            "history": job.history,
            "at": job.section.positions,
            **({"causal": True} if self.job.treatment.causal else {}),
            **({"late": job.late.chooser.to_key()} if job.late else {}),  # what the first steps choose from
        }
        return digest(parts)


def backbone_of_file(path: Path | str) -> Backbone:
    """Whose checkpoint it is. Raises CheckpointError."""
    return ModelFile.open(path).backbone


@dataclass(frozen=True, kw_only=True)
class JobRun(pipeline.SolverSampler):
    """The engine's sampler for a job file, whose sections are stored. Its latents are normalised."""

    job: JobFile
    place: Place
    model: str  # its identity

    @classmethod
    def of(cls, job: JobFile, place: Place) -> JobRun:
        """Load the job's model. Raises FramePackError, CheckpointError."""
        dit = place.load(job.model)
        dtype = DTYPES[place.dtype]
        denoiser = DitDenoiser(
            dit=dit,
            prompts=job.prompts,
            negative=job.negative,
            dtype=dtype,
            device=place.device,
            causal=job.treatment.causal,
        )
        how = {"denoiser": denoiser, "solver": solver_named(job.solver), "guidance": job.guidance}
        return cls(**how, job=job, place=place, model=model_identity(job.model))

    def of_same(self, job: JobFile) -> JobRun:
        """Another job of the same model, which stays loaded."""
        denoiser = replace(self.denoiser, prompts=job.prompts, negative=job.negative, causal=job.treatment.causal)
        how = {"denoiser": denoiser, "solver": solver_named(job.solver), "guidance": job.guidance}
        return JobRun(**how, job=job, place=self.place, model=self.model)

    @cached_property
    def keys(self) -> Keys:
        """How its sections are known."""
        threads = self.place.threads or torch.get_num_threads()
        place = replace(self.place, device=self.place.name, threads=threads)
        return Keys(job=self.job, place=place, model=self.model, ranks=self.denoiser.dit.ranks.world)

    def key(self, job: pipeline.Job) -> str:
        """A digest of all that determines a section's bits."""
        return self.keys.key(job)

    def sample(self, job: pipeline.Job, step: Callback | None) -> Tensor:
        """The solver's result from the job's noise, on as many threads as the place says."""
        if self.place.threads:
            torch.set_num_threads(self.place.threads)  # a number that each thread of Python has for itself
        return super().sample(job, step)

    @property
    def settings(self) -> pipeline.Settings:
        """The job's seed and noise levels."""
        return settings_of(self.job, backbone_with(self.denoiser.dit.spec).outside_noise)


def settings_of(job: JobFile, outside_noise: tuple[float, float] | None) -> pipeline.Settings:
    """A job's seed and noise levels, and the noise that its model gives to latents from outside."""
    patch = job.plan.geometry.patch
    how = {"seed": job.seed, "steps": job.steps, "sigmas": job.sigmas, "outside_noise": outside_noise}
    return pipeline.Settings(**how, patch=patch, treatment=job.treatment.within(job.normalised))
