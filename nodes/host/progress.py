"""What a person sees while a plan is sampled: one bar over the whole plan, the time left, previews.

The nodes of a plan's sections know their own slice only, so that the host's cache keeps them when the plan changes
elsewhere. What they have in common for a run, its length and its speed, is kept here by the node that shows it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.model_patcher
import comfy.utils
import torch
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from PIL import Image
from torch import Tensor

from ...framepack.units import FRAMES_PER_LATENT, PIXELS_PER_LATENT
from .pictures import on_page

log = logging.getLogger(__name__)

MAX_PICTURES = 48  # frames of the animated preview; a longer video shows every second, third, ... latent frame
PREVIEW_SIZE = 128  # pixels of its longer side, at least
ANIMATION = {  # Pillow's options; a key frame beside the first would have every frame encoded twice
    "duration": round(1000 * FRAMES_PER_LATENT / 30),
    "loop": 0,
    "quality": 60,
    "method": 0,
    "kmin": 0,
    "kmax": 0,
}
PREVIEW_SHARE = 0.02  # of a run's time that drawing may take; beyond it a section's animation is left out
TEXT_EVERY = 0.5  # seconds
WEIGHT = 0.2  # of the latest step in the running mean of a step's time


@dataclass(slots=True)
class Run:
    """A plan's sampling: how many sections it has, how long a step takes, and small pictures of what is finished.

    Of the pictures every `stride`-th latent frame is kept, so that their number stays bounded. `began`, `drawing` and
    `previewing` are when it began, and for how long it has drawn animations and latent previews, in seconds.
    """

    sections: int = 1
    step_seconds: float = 0.0
    pictures: dict[int, Image.Image] = field(default_factory=dict)
    stride: int = 1
    began: float = field(default_factory=time.monotonic)
    drawing: float = 0.0
    previewing: float = 0.0
    said: float = 0.0  # when a line of text was last shown
    frame_seconds: float = 0.001  # to draw a picture of the animation; measured from the first one on

    def shown(self, pictures: Mapping[int, Image.Image], began: float) -> dict[str, Any]:
        """A node's ui: an animated picture of all small pictures, with these, by latent frame, among them.

        Empty where drawing would take too much of the run's time. These are being made since `began`.
        """
        self.pictures |= pictures
        while len(self.pictures) > MAX_PICTURES:
            self.stride *= 2
            self.pictures = {frame: p for frame, p in self.pictures.items() if frame % self.stride == 0}
        num = len(self.pictures)
        if not num or self.drawing + num * self.frame_seconds > PREVIEW_SHARE * (began - self.began):
            self.drawing += time.monotonic() - began
            return {}
        shown = on_page([self.pictures[frame] for frame in sorted(self.pictures)], "webp", **ANIMATION)
        took = time.monotonic() - began
        self.drawing, self.frame_seconds = self.drawing + took, took / num
        share = 100 / (time.monotonic() - self.began)
        log.info("previews took %.1f %% of the run so far", share * (self.drawing + self.previewing))
        return {"images": [shown], "animated": (True,)}

    def say(self, text: str, node: str, final: bool = False) -> None:
        """Show a line of text on a node, where the host can; one that is not final twice a second at most."""
        now = time.monotonic()
        if not (final or now - self.said > TEXT_EVERY):
            return
        self.said = now
        from server import PromptServer

        server = PromptServer.instance
        if node and server.client_id is not None:  # no id would send it to every page
            server.send_progress_text(text, node, server.client_id)


_RUNS: dict[str, Run] = {}  # by the node that shows them; one per SectionSampler on the graph


def begin_run(sections: int) -> None:
    """A plan of so many sections is about to be sampled by children of the node that executes now."""
    _RUNS[shown_on()] = Run(sections=sections)


class SectionProgress:
    """Progress of one section, number `index` of the plan in order of generation."""

    def __init__(self, model: comfy.model_patcher.ModelPatcher, index: int, steps: int):
        self.index, self.steps = index, steps
        self.node = shown_on()
        self.run = _RUNS.setdefault(self.node, Run())
        self.sections = max(self.run.sections, index + 1)
        self.bar = comfy.utils.ProgressBar(self.sections * steps)
        self.previewer = _previewer(model)
        self.last, self.run.said = time.monotonic(), 0.0

    def callback(self, step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        """The host's, after each step."""
        now = time.monotonic()
        if step:  # the first step also loads the model
            took, mean = now - self.last, self.run.step_seconds
            self.run.step_seconds = took if not mean else mean + WEIGHT * (took - mean)
        self.last = now
        picture = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
        self.run.previewing += time.monotonic() - now
        self.bar.update_absolute(self.index * self.steps + step + 1, preview=picture)
        self.run.say(self.text(step + 1), self.node, final=step + 1 == self.steps)

    def skip(self) -> None:
        """The section was taken from the store."""
        self.bar.update_absolute((self.index + 1) * self.steps)
        self.run.say(f"section {self.index + 1} of {self.sections} was kept from before", self.node, final=True)

    def text(self, step: int) -> str:
        """Where the run stands."""
        left = (self.sections - self.index) * self.steps - step
        text = f"section {self.index + 1} of {self.sections}, step {step} of {self.steps}"
        return text + (f", {duration(left * self.run.step_seconds)} left" if self.run.step_seconds and left else "")

    def animation(self, raw: dict[int, Tensor], fmt: Any) -> dict[str, Any]:
        """A node's ui: an animated picture of all frames finished so far, from raw latents ``1 c 1 h w`` by frame.

        `raw` may name frames again: those that this run did not make come from what looks at them. Empty where the
        picture would take too much of the run's time, or the latent format tells no colours.
        """
        began = time.monotonic()
        if fmt.latent_rgb_factors is None:
            return {}
        run = self.run
        wanted = {n: latent for n, latent in raw.items() if n % run.stride == 0 and n not in run.pictures}
        return run.shown(small_pictures(wanted, fmt), began)


def show_frames(first: int, frames: Iterable[Tensor]) -> dict[str, Any]:
    """A node's ui: the same picture with decoded frames ``n h w c``, from pixel frame `first` on, in their places."""
    began, run = time.monotonic(), _RUNS.setdefault(shown_on(), Run())
    apart, pictures, at = FRAMES_PER_LATENT * run.stride, {}, first
    for some in frames:
        for i in range(-at % apart, len(some), apart):
            pictures[(at + i) // FRAMES_PER_LATENT] = _reduced(some[i])
        at += len(some)
    return run.shown(pictures, began)


def small_pictures(raw: Mapping[int, Tensor], fmt: Any) -> dict[int, Image.Image]:
    """Raw latents ``1 c 1 h w`` by frame -> pictures of them through the latent format's factors."""
    if not raw:
        return {}
    latents = fmt.process_in(torch.cat(list(raw.values()), 2).float())[0].movedim(0, -1).cpu()  # t h w c
    bias = torch.tensor(fmt.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    colours = latents @ torch.tensor(fmt.latent_rgb_factors) + bias
    size = _preview_size(*colours.shape[1:3])
    pictures = map(Image.fromarray, ((colours + 1) * 127.5).clamp(0, 255).byte().numpy())
    return dict(zip(raw, (p.resize(size, Image.Resampling.BILINEAR) for p in pictures), strict=True))


def _preview_size(height: int, width: int) -> tuple[int, int]:
    """Width and height in pixels of a picture, given in latents."""
    scale = max(1, PREVIEW_SIZE // max(height, width))
    return width * scale, height * scale


def _reduced(frame: Tensor) -> Image.Image:
    """A frame ``h w c`` in [0, 1] at the size of a picture of its latent."""
    picture = Image.fromarray((frame * 255).clamp(0, 255).byte().cpu().numpy())
    return picture.resize(_preview_size(*(side // PIXELS_PER_LATENT for side in frame.shape[:2])))


def duration(seconds: float) -> str:
    """A time for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _previewer(model: comfy.model_patcher.ModelPatcher) -> Any:
    import latent_preview

    return latent_preview.get_previewer(model.load_device, model.model.latent_format)


def shown_on() -> str:
    """The node on the page that shows what the executing node does; an empty name where the host does not tell."""
    context, state = get_executing_context(), get_progress_state()
    return "" if context is None else str(state.dynprompt.get_display_node_id(context.node_id))


def say(text: str, final: bool = False) -> None:
    """Show a line of text on the node that executes now, as Run.say does."""
    node = shown_on()
    _RUNS.setdefault(node, Run()).say(text, node, final)
