"""What a page shows of a farm's run: one bar over all sections, previews, and the finished sections as takes."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...framepack.job_file import JobFile
from .progress import duration, latent_previewer
from .runs import Run, current_run, shown_on
from .sampling import latent_format


def make_room() -> None:
    """Take the host's models off its GPU, where workers on this machine need the memory."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


class FarmProgress:
    """Hears a farm's events. `model` is a MODEL whose latent format draws previews, or None."""

    def __init__(self, model: Any | None):
        self.model, self.previewer = model, latent_previewer(model) if model is not None else None
        self.run, self.node = current_run(), shown_on()
        self.bar: comfy.utils.ProgressBar | None = None
        self.sections, self.done, self.seconds = 0, 0, 0.0
        self.parts: dict[int, float] = {}  # of sections that are sampled now: the share that is done
        self.made: dict[int, dict[str, Any]] = {}  # finished sections, as the page shows a take

    def __call__(self, event: dict[str, Any]) -> None:
        """One event."""
        kind = event["event"]
        if kind == "begin":
            self.sections, self.run.shown = event["sections"], 0.0
            self.bar = comfy.utils.ProgressBar(1000)
        if kind in ("section", "stored"):
            self.done, how = self.done + 1, "sampled" if kind == "section" else "stored"
            self.parts.pop(event["section"], None)
            self.made[event["section"]] = {"take": event["take"], "how": how, "sections": self.sections}
        if kind == "step":
            self.parts[event["section"]] = event["step"] / event["steps"]
        if text := self._text(event):
            self.run.say(text, self.node, final=kind in ("end", "death", "waiting"))
        if self.bar is not None:
            share = (self.done + sum(self.parts.values())) / max(self.sections, 1)
            self.bar.update_absolute(min(round(1000 * share), 1000), preview=self._preview(event))

    def ui(self, job: JobFile, raw: Tensor) -> dict[str, Any]:
        """A node's ui once all is there: the sections, and what they look like; `raw` are the latents ``b c t h w``."""
        frames = {i: raw[:, :, i : i + 1] for i in range(raw.shape[2])}
        fmt, shown = latent_format(self.model) if self.model is not None else None, {}
        for index, section in enumerate(job.plan.sections):
            made = {frame: frames[frame] for frame in section.made}
            pictures = self.run.previews.of_section(made, frames.get(0), fmt) if fmt else {}
            self.made[index] |= {"index": index, "seed": str(job.seed), **pictures}
        if fmt:
            shown = self.run.previews.of_latents(frames, fmt)
        sections = [self.made[index] for index in sorted(self.made)]
        sampled = {section["index"] for section in sections if section["how"] == "sampled"}
        said = Run(sections=len(sections), sampled=sampled).summary
        return {"framepack_sections": sections, "framepack_reuse": [said], **shown}

    def _text(self, event: dict[str, Any]) -> str | None:
        kind = event["event"]
        if kind == "waiting":
            return f"{event['what']} {event['why']}"
        if kind == "death":
            return "a worker died and is replaced; its section is sampled again"
        if kind in ("section", "stored", "step"):
            left = (self.sections - self.done) * event["time"] / self.done if self.done else 0
            return f"{self.done} of {self.sections} sections" + (f", {duration(left)} left" if left else "")
        return None

    def _preview(self, event: dict[str, Any]) -> Any:
        if self.previewer is None or "preview" not in event:
            return None
        try:
            latents = load_file(event["preview"])["latents"]
        except (OSError, SafetensorError, KeyError):  # the next one has replaced it
            return None
        return self.previewer.decode_latent_to_preview_image("JPEG", latents)
