"""The host as the engine's sampler: its guider, its samplers and all that stock nodes do to a MODEL."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import comfy.model_patcher
import comfy.samplers
from torch import Tensor

from ...framepack.packing.seeing import Turning
from ...framepack.pipeline import Job
from ...framepack.sampling.guidance import Guidance, blank, sees
from ...framepack.sampling.solvers import Callback
from ...framepack.store.digest import digest
from .keeping import section_key
from .memory import check_memory
from .runs import current_run
from .sampling import SectionGuider, latent_format, sample, solver_of, with_options, with_values, zeroed


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSampler:
    """Samples sections by the host. Its latents are raw, as the host's LATENT.

    `conditionings` are the host's, by the prompt of a section; `distilled` is the number that the model was distilled
    to take as guidance. With `causal` history sees history only.
    """

    model: comfy.model_patcher.ModelPatcher
    conditionings: dict[Any, list]
    negative: list | None
    vision: Any
    sampler: Any
    guidance: Guidance
    distilled: float
    causal: bool = False

    @property
    def solver(self) -> Any:
        """The pack's solver, if the SAMPLER is one."""
        return solver_of(self.sampler)

    def key(self, job: Job) -> str | None:
        """A digest of all that determines the section; None where a part has no contents to digest."""
        parts = {
            "seed": job.seed,
            "guidance": self.distilled,
            "negative": self.negative,
            "led": {name: value for name, value in asdict(self.guidance).items() if name != "zero_star" or value},
            "positive": self.conditionings[job.section.prompt],
            "noise": job.noise,
            "sigmas": job.sigmas,
            "history": job.history,
            "at": job.section.positions,
        }
        if self.causal:
            parts["causal"] = True
        if job.late:  # the first steps choose among all of these
            parts["late"] = job.late.chooser.to_key()
        return section_key(self.model, self.sampler, self.vision, parts)

    def about(self, job: Job) -> dict[str, str]:
        """The video's title, the section and its seed, and a digest of its history."""
        title, context = current_run().title, digest({"history": job.history, "at": job.section.positions})
        return {"video": title, "section": str(job.index + 1), "seed": str(job.seed), "context": context}

    def sample(self, job: Job, step: Callback | None) -> Tensor:
        """Raw latents ``1 c t h w``. Raises TooLittleMemoryError."""
        check_memory(self.model, job.section, tuple(job.noise.shape[3:]))
        extra = {
            "framepack_positions": job.section.positions,
            "framepack_history": job.history,
            "framepack_vision": self.vision,
            "framepack_causal": self.causal,
            "guidance": self.distilled,
        }
        positive = self.conditionings[job.section.prompt]
        negative = self.negative or zeroed(positive)
        conds = {"positive": with_values(positive, extra), "negative": with_values(negative, extra)}
        if self.guidance.history and sees(job.history):
            conds["blank"] = with_values(negative, extra | {"framepack_history": blank(job.history)})

        def report(number: int, x0: Tensor, x: Tensor, total: int) -> None:
            if step is not None:
                step(number, x, x0)

        sampler = with_options(self.sampler, job.generator, self.guidance.cfg != 1)
        turning = Turning(job.history, job.late, job.sigmas)
        guider = SectionGuider(self.model, self.guidance, conds, turning)
        return sample(guider, job.noise, job.sigmas, sampler, job.seed, report)

    def normalised(self, latents: Tensor) -> Tensor:
        """As the model has latents."""
        return latent_format(self.model).process_in(latents)
