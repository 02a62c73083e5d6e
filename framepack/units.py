"""Kernels, and the arithmetic of latent frames, pixel frames and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .errors import FramePackError, LatentSizeError, quoted

PIXELS_PER_LATENT = 8  # height and width
FRAMES_PER_LATENT = 4  # time, but for the first frame
PIXEL_UNIT = 16  # one k1 token
MAX_PIXELS = 8192  # height or width
# Latent frame indices that the released weights were trained on: FramePackI2V_HY (inverted), FramePack_F1 (forward).
TRAINED_POSITIONS = {"inverted": range(56), "forward": range(29)}


@dataclass(frozen=True, slots=True, order=True)
class Kernel:
    """A patchify kernel (t, h, w) in latent frames and latent pixels; its name is ``k4`` for (4, 8, 8)."""

    t: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.t, self.h, self.w) < 1 or self.h % 2 or self.w % 2:
            raise FramePackError(
                "A kernel has a time of 1 or more, and an even height and width, because RoPE phases are pooled from "
                f"2x2 patches; got ({self.t}, {self.h}, {self.w}). Try (1, 2, 2)."
            )

    @classmethod
    def short(cls, k: int) -> Kernel:
        """The kernel that ``kN`` stands for: (N, 2N, 2N) (paper section 4.1)."""
        return cls(k, 2 * k, 2 * k)

    @property
    def size(self) -> int:
        """Latent values under the kernel."""
        return self.t * self.h * self.w

    def num_tokens(self, num_lat_frames: int, height: int, width: int) -> int:
        """Tokens of a group on a latent grid of height by width, padding counted."""
        return ceil(num_lat_frames / self.t) * ceil(height / self.h) * ceil(width / self.w)

    def __str__(self) -> str:
        short = self.h == self.w == 2 * self.t
        return f"k{self.t}" if short else f"k{self.t}h{self.h}w{self.w}"


BASE = Kernel(1, 2, 2)


def pixel_frames(num_lat_frames: int) -> int:
    """Pixel frames of n latent frames from the first one on: 4n - 3."""
    return FRAMES_PER_LATENT * num_lat_frames - 3 if num_lat_frames else 0


def num_sections(seconds: float, fps: float, generate: int) -> int:
    """Sections of `generate` latent frames that come nearest to a length in seconds; at least one."""
    return max(round(seconds * fps / (FRAMES_PER_LATENT * generate)), 1)


def latent_frame(seconds: float, fps: float) -> int:
    """The latent frame that holds the pixel frame shown at a time: 0, then one for each four pixel frames."""
    return ceil(round(seconds * fps) / FRAMES_PER_LATENT)


def latent_grid(height: int, width: int) -> tuple[int, int]:
    """Latent height and width of a picture in pixels. Raises LatentSizeError off the unit of 16 pixels."""
    for name, pixels in (("Height", height), ("Width", width)):
        if not PIXEL_UNIT <= pixels <= MAX_PIXELS or pixels % PIXEL_UNIT:
            below = min(max(PIXEL_UNIT, pixels // PIXEL_UNIT * PIXEL_UNIT), MAX_PIXELS)
            above = min(below + PIXEL_UNIT, MAX_PIXELS)
            near = f"{below} or {above}" if below < pixels < above else f"{below}"
            raise LatentSizeError(
                f"{name} must be a multiple of {PIXEL_UNIT} from {PIXEL_UNIT} to {MAX_PIXELS}; got {quoted(pixels)}. "
                f"Try {near}."
            )
    return height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT
