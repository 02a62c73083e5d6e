"""Kernels, and the geometry of a backbone's latents: how they lie in pixels, frames and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .errors import FramePackError, LatentSizeError, quoted

MAX_PIXELS = 8192  # height or width
# Latent frame indices that the released weights were trained on: FramePackI2V_HY (inverted), FramePack_F1 (forward).
TRAINED_POSITIONS = {"inverted": range(56), "forward": range(29)}
PATCH = 2  # a kernel's height and width count half patches, as in the paper, whose patch is 2x2 latents


@dataclass(frozen=True, slots=True, order=True)
class Kernel:
    """A patchify kernel (t, h, w) in latent frames and half patches; its name is ``k4`` for (4, 8, 8).

    In the paper a patch is 2x2 latents, so that h and w are latents there. Raises FramePackError.
    """

    t: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.t, self.h, self.w) < 1 or self.h % PATCH or self.w % PATCH:
            raise FramePackError(
                "A kernel has a time of 1 or more, and an even height and width, because RoPE phases are pooled from "
                f"2x2 patches; got ({self.t}, {self.h}, {self.w}). Try (1, 2, 2)."
            )

    @classmethod
    def short(cls, k: int) -> Kernel:
        """The kernel that ``kN`` stands for: (N, 2N, 2N) (paper section 4.1)."""
        return cls(k, PATCH * k, PATCH * k)

    @property
    def patches(self) -> tuple[int, int, int]:
        """Its size in latent frames and patches: (4, 4, 4) for ``k4``."""
        return self.t, self.h // PATCH, self.w // PATCH

    @property
    def size(self) -> int:
        """Latent values under the kernel, where a patch is 2x2 latents."""
        return self.t * self.h * self.w

    def num_tokens(self, num_lat_frames: int, height: int, width: int, patch: int = PATCH) -> int:
        """Tokens of a group on a latent grid of height by width, padding counted; `patch` is a patch's side."""
        t, h, w = self.patches
        return ceil(num_lat_frames / t) * ceil(height / (h * patch)) * ceil(width / (w * patch))

    def __str__(self) -> str:
        short = self.h == self.w == PATCH * self.t
        return f"k{self.t}" if short else f"k{self.t}h{self.h}w{self.w}"


BASE = Kernel(1, 2, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a backbone's latents lie in pixels, frames and tokens. The backbone states it, and a plan carries it.

    `spatial` are the pixels of a latent in height and width, `temporal` the frames of a latent frame after the first,
    `patch` the latents of a patch in height and width, `channels` those of a latent. With `sections_are_clips` each
    section decodes on its own, and so its first latent frame is one frame. Raises FramePackError.
    """

    spatial: int = 8
    temporal: int = 4
    patch: int = 2
    channels: int = 16
    sections_are_clips: bool = False

    def __post_init__(self) -> None:
        for name, most in (("spatial", 64), ("temporal", 64), ("patch", 8), ("channels", 1024)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise FramePackError(f"A geometry's {name} is a whole number from 1 to {most}; got {quoted(value)}.")

    @property
    def pixel_unit(self) -> int:
        """Pixels of a patch: height and width of a video are multiples of it."""
        return self.spatial * self.patch

    def latent_grid(self, height: int, width: int) -> tuple[int, int]:
        """Latent height and width of a picture in pixels. Raises LatentSizeError for sizes off the unit."""
        unit = self.pixel_unit
        for name, pixels in (("Height", height), ("Width", width)):
            if not unit <= pixels <= MAX_PIXELS or pixels % unit:
                below = min(max(unit, pixels // unit * unit), MAX_PIXELS)
                above = min(below + unit, MAX_PIXELS)
                near = f"{below} or {above}" if below < pixels < above else f"{below}"
                bounds = f"a multiple of {unit} from {unit} to {MAX_PIXELS}"
                raise LatentSizeError(f"{name} must be {bounds}; got {quoted(pixels)}. Try {near}.")
        return height // self.spatial, width // self.spatial

    def num_tokens(self, kernel: Kernel, num_lat_frames: int, height: int, width: int) -> int:
        """Tokens of a group on a latent grid of height by width, padding counted."""
        return kernel.num_tokens(num_lat_frames, height, width, self.patch)

    def latents(self, kernel: Kernel) -> tuple[int, int, int]:
        """The latents under a kernel in time, height and width."""
        t, h, w = kernel.patches
        return t, h * self.patch, w * self.patch

    def pixel_frames(self, num_lat_frames: int) -> int:
        """Frames of a clip of n latent frames: 1 for the first, `temporal` for each other; 4n - 3."""
        return self.temporal * (num_lat_frames - 1) + 1 if num_lat_frames else 0

    def section_frames(self, generate: int) -> int:
        """Frames that a further section of so many latent frames adds to a video."""
        return self.pixel_frames(generate) if self.sections_are_clips else self.temporal * generate

    def num_sections(self, seconds: float, fps: float, generate: int) -> int:
        """Sections of `generate` latent frames that come nearest to a length in seconds; at least one."""
        return max(round(seconds * fps / self.section_frames(generate)), 1)

    def latent_frame(self, seconds: float, fps: float) -> int:
        """The latent frame that holds the frame shown at a time: 0, then one for each `temporal` frames."""
        return ceil(round(seconds * fps) / self.temporal)

    def seam(self, seconds: float, fps: float, generate: int) -> int:
        """The latent frame after the whole sections of `generate` that come nearest to a time."""
        return round(seconds * fps / self.section_frames(generate)) * generate


RELEASED = Geometry()  # of HunyuanVideo and Wan 2.1, and so of all released FramePack weights
