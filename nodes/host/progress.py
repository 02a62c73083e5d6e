"""What a person sees while a plan is sampled: one bar over the whole plan, the time left, previews."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import comfy.model_patcher
import comfy.utils
from torch import Tensor

from ...framepack.pipeline import Job
from ...framepack.sampling.solvers import Callback
from .runs import current_run, shown_on, video_index

log = logging.getLogger(__name__)

WEIGHT = 0.2  # of the latest step in the running mean of a step's time


class SectionProgress:
    """Progress of one section, number `index` of the plan in order of generation."""

    def __init__(self, model: comfy.model_patcher.ModelPatcher, index: int, steps: int):
        self.index, self.steps = index, steps
        self.node, self.run, self.video = shown_on(), current_run(), video_index()
        self.sections = max(self.run.sections, index + 1)
        self.bar = comfy.utils.ProgressBar(self.sections * steps)
        self.previewer = latent_previewer(model)
        self.last, self.run.shown = time.monotonic(), 0.0

    def callback(self, step: int, x: Tensor, x0: Tensor) -> None:
        """After each step; x and the denoised x0 ``b c t h w``."""
        now = time.monotonic()
        if step:  # the first step also loads the model
            took, mean = now - self.last, self.run.step_seconds
            self.run.step_seconds = took if not mean else mean + WEIGHT * (took - mean)
        self.last = now
        picture = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
        self.run.previews.decoding += time.monotonic() - now
        self.bar.update_absolute(self.index * self.steps + step + 1, preview=picture)
        self.run.say(self.text(step + 1), self.node, final=step + 1 == self.steps)

    def skip(self, why: str = "is loaded from the section store") -> None:
        """The section was not sampled. Raises what the host raises where the run was cancelled."""
        self.bar.update_absolute((self.index + 1) * self.steps)
        self.run.say(f"{self.name()} {why}", self.node, final=self.index + 1 == self.sections)

    def name(self) -> str:
        """The section's number, and the video's where it is not the first."""
        video = f"video {self.video + 1}, " if self.video else ""
        return f"{video}section {self.index + 1} of {self.sections}"

    def text(self, step: int) -> str:
        """Where the run stands."""
        left = (self.sections - self.index) * self.steps - step
        text = f"{self.name()}, step {step} of {self.steps}"
        return text + (f", {duration(left * self.run.step_seconds)} left" if self.run.step_seconds and left else "")


class PlanProgress:
    """The engine's progress of a slice of a plan, as its node shows it."""

    def __init__(self, model: comfy.model_patcher.ModelPatcher):
        self.model, self.how = model, "sampled"
        self.made: list[dict[str, Any]] = []  # of each finished section: what the page shows as a take

    def begin(self, job: Job) -> Callback:
        """A section is about to be sampled."""
        section, self.how = self._section(job), "sampled"
        section.run.sampled.add(job.index)
        return section.callback

    def loaded(self, job: Job) -> None:
        """A section came from the store. Raises what the host raises where the run was cancelled."""
        log.info("section %d is loaded from the section store", job.index + 1)
        self.how = "stored"
        self._section(job).skip()

    def locked(self, job: Job, seam: bool) -> None:
        """A section is a locked take; says where its history has changed."""
        section, self.how = self._section(job), "locked"
        if seam:
            said = f"section {job.index + 1} is locked and what it continues has changed: look for a seam there"
            log.warning("%s", said)
            section.run.seams.append(said)
        section.skip("is a locked take")

    def done(self, job: Job, key: str | None) -> None:
        """A section is there."""
        take = {"index": job.index, "seed": str(job.seed), "take": key and key[:16], "how": self.how}
        self.made.append(take | {"sections": max(current_run().sections, job.index + 1)})

    def shown(self, made: Mapping[int, Tensor], there: Mapping[int, Tensor], fmt: Any) -> None:
        """The latest section, with its latents, as the page shows it: small pictures, and its look beside the start's.

        `there` are the latents of the video that it knows of.
        """
        if not video_index():
            self.made[-1] |= current_run().previews.of_section(made, there.get(0), fmt)

    def ui(self) -> dict[str, Any]:
        """A node's ui: its sections."""
        return {} if video_index() else {"framepack_sections": self.made}

    def animation(self, raw: dict[int, Tensor], fmt: Any) -> dict[str, Any]:
        """A node's ui: an animation of the first video's finished frames, as Previews.of_latents gives it."""
        return {} if video_index() else current_run().previews.of_latents(raw, fmt)

    def _section(self, job: Job) -> SectionProgress:
        return SectionProgress(self.model, job.index, len(job.sigmas) - 1)


def show_frames(frames: Mapping[int, Tensor], spatial: int) -> dict[str, Any]:
    """A node's ui: the same animation with decoded pictures, as Previews.of_frames gives it."""
    return {} if video_index() else current_run().previews.of_frames(frames, spatial)


def duration(seconds: float) -> str:
    """A time for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def latent_previewer(model: comfy.model_patcher.ModelPatcher) -> Any:
    """The host's previewer of a MODEL's latents, or None where previews are off."""
    import latent_preview

    return latent_preview.get_previewer(model.load_device, model.model.latent_format)
