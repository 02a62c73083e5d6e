"""What a page shows while a farm samples a plan: one bar over all sections, and what a section looks like so far."""

from __future__ import annotations

from typing import Any

import comfy.utils
from safetensors import SafetensorError
from safetensors.torch import load_file

from .progress import duration, latent_previewer
from .runs import current_run, shown_on


class FarmProgress:
    """Hears a farm's events. `model` is a MODEL whose latent format draws previews, or None."""

    def __init__(self, model: Any | None):
        self.previewer = latent_previewer(model) if model is not None else None
        self.run, self.node = current_run(), shown_on()
        self.bar: comfy.utils.ProgressBar | None = None
        self.sections, self.done, self.seconds = 0, 0, 0.0
        self.parts: dict[int, float] = {}  # of sections that are sampled now: the share that is done

    def __call__(self, event: dict[str, Any]) -> None:
        """One event."""
        kind = event["event"]
        if kind == "begin":
            self.sections, self.run.shown = event["sections"], 0.0
            self.bar = comfy.utils.ProgressBar(1000)
        if kind in ("section", "stored"):
            self.done += 1
            self.parts.pop(event["section"], None)
        if kind == "step":
            self.parts[event["section"]] = event["step"] / event["steps"]
        if text := self._text(event):
            self.run.say(text, self.node, final=kind in ("end", "death", "waiting"))
        if self.bar is not None:
            share = (self.done + sum(self.parts.values())) / max(self.sections, 1)
            self.bar.update_absolute(min(round(1000 * share), 1000), preview=self._preview(event))

    def _text(self, event: dict[str, Any]) -> str | None:
        kind = event["event"]
        if kind == "waiting":
            return f"{event['workers']} workers wait {event['why']}"
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
