"""An animated picture of a run's finished frames, drawn within a small share of the run's time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...framepack.units import RELEASED
from .looks import look_of
from .pictures import on_page

log = logging.getLogger(__name__)

MAX_PICTURES = 48  # frames of the animation; a longer video shows every second, third, ... latent frame
SIZE = 128  # pixels of its longer side, at least
ANIMATION = {  # Pillow's options; a key frame beside the first would have every frame encoded twice
    "duration": round(1000 * RELEASED.temporal / 30),
    "loop": 0,
    "quality": 60,
    "method": 0,
    "kmin": 0,
    "kmax": 0,
}
SHARE = 0.02  # of a run's time that drawing may take; beyond it a section's animation is left out


@dataclass(slots=True)
class Previews:
    """Small pictures of a run's frames, by latent frame, and how long drawing them has taken.

    Only every `stride`-th latent frame is kept, so that their number stays bounded. `drawing` and `decoding` are the
    seconds that animations and the host's own latent previews have taken.
    """

    pictures: dict[int, Image.Image] = field(default_factory=dict)
    stride: int = 1
    began: float = field(default_factory=time.monotonic)
    drawing: float = 0.0
    decoding: float = 0.0
    frame_seconds: float = 0.001  # to draw one picture; measured from the first animation on

    def of_latents(self, raw: Mapping[int, Tensor], fmt: Any) -> dict[str, Any]:
        """A node's ui: the animation with raw latents ``1 c 1 h w``, by frame, among its pictures.

        `raw` may name frames again: those that this run did not sample come from what looks at them. Empty where the
        animation would take too much of the run's time, or the latent format has no colours.
        """
        began = time.monotonic()
        if fmt.latent_rgb_factors is None:
            return {}
        wanted = {n: latent for n, latent in raw.items() if n % self.stride == 0 and n not in self.pictures}
        return self._shown(small_pictures(wanted, fmt), began)

    def of_frames(self, frames: Mapping[int, Tensor], spatial: int) -> dict[str, Any]:
        """A node's ui: the animation with decoded pictures ``h w c``, by latent frame, in their places.

        `spatial` are the pixels of a latent in height and width.
        """
        began = time.monotonic()
        return self._shown({n: _reduced(f, spatial) for n, f in frames.items() if n % self.stride == 0}, began)

    def of_section(self, made: Mapping[int, Tensor], start: Tensor | None, fmt: Any) -> dict[str, Any]:
        """One section as the page shows it: small pictures in motion, and how it compares with the video's start.

        `made` are its raw latents ``1 c 1 h w`` by frame, `start` the video's first. Empty where there are no colours.
        """
        if fmt.latent_rgb_factors is None:
            return {}
        pictures = list(small_pictures(made, fmt).values())
        first = list(small_pictures({} if start is None else {0: start}, fmt).values())
        return {"picture": on_page(pictures, "webp", **ANIMATION), "look": look_of(pictures, first)}

    def _shown(self, pictures: Mapping[int, Image.Image], began: float) -> dict[str, Any]:
        """The animation with more pictures, whose making `began` then. Empty where drawing takes too long."""
        self.pictures |= pictures
        while len(self.pictures) > MAX_PICTURES:
            self.stride *= 2
            self.pictures = {frame: p for frame, p in self.pictures.items() if frame % self.stride == 0}
        num = len(self.pictures)
        if not num or self.drawing + num * self.frame_seconds > SHARE * (began - self.began):
            self.drawing += time.monotonic() - began
            return {}
        shown = on_page([self.pictures[frame] for frame in sorted(self.pictures)], "webp", **ANIMATION)
        took = time.monotonic() - began
        self.drawing, self.frame_seconds = self.drawing + took, took / num
        share = 100 / (time.monotonic() - self.began)
        log.info("previews took %.1f %% of the run so far", share * (self.drawing + self.decoding))
        return {"images": [shown], "animated": (True,)}


def small_pictures(raw: Mapping[int, Tensor], fmt: Any) -> dict[int, Image.Image]:
    """Raw latents ``1 c 1 h w`` by frame -> pictures of them through the latent format's factors."""
    if not raw:
        return {}
    latents = fmt.process_in(torch.cat(list(raw.values()), 2).float())[0].movedim(0, -1).cpu()  # t h w c
    bias = torch.tensor(fmt.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
    colours = latents @ torch.tensor(fmt.latent_rgb_factors) + bias
    size = _size(*colours.shape[1:3])
    pictures = map(Image.fromarray, ((colours + 1) * 127.5).clamp(0, 255).byte().numpy())
    return dict(zip(raw, (p.resize(size, Image.Resampling.BILINEAR) for p in pictures), strict=True))


def _size(height: int, width: int) -> tuple[int, int]:
    """Width and height in pixels of a picture, given in latents."""
    scale = max(1, SIZE // max(height, width))
    return width * scale, height * scale


def _reduced(frame: Tensor, spatial: int) -> Image.Image:
    """A frame ``h w c`` in [0, 1] at the size of a picture of its latent."""
    picture = Image.fromarray((frame * 255).clamp(0, 255).byte().cpu().numpy())
    return picture.resize(_size(*(side // spatial for side in frame.shape[:2])))
