"""What becomes of the tail, the frames beyond all groups (paper section 4.1). A new tail is a class here.

Dims: b batch, c channels, n frames of the tail, h w latent grid.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from ..units import PATCH, Kernel


class Tail:
    """A context group's frames on their way to tokens; this class leaves them as they are.

    Frames are gathered once a section, then averaged over squares of `pool` latents, and then go through the group's
    kernel, for a tail the kernel next to it. `name` is the tail's part of a schedule, `note` its line in pictures,
    `brief` its entry in tables.
    """

    name = note = brief = ""
    kept = True

    def num_gathered(self, num_lat_frames: int) -> int:
        """How many frames `gather` leaves."""
        return num_lat_frames

    def gather(self, latents: Any) -> Any:
        """The tail's latents ``b c n h w``, as every step of the section sees them."""
        return latents

    def pool(self, patch: int = PATCH) -> int:
        """The side in latents of the squares over which latents are averaged before the kernel."""
        return 1

    def num_tokens(self, kernel: Kernel, num_lat_frames: int, height: int, width: int, patch: int = PATCH) -> int:
        """Tokens of so many frames on a latent grid of height by width."""
        if not num_lat_frames:
            return 0
        side = self.pool(patch)
        grid = ceil(height / side), ceil(width / side)
        return kernel.num_tokens(self.num_gathered(num_lat_frames), *grid, patch)

    def cell(self, kernel: Kernel, num_lat_frames: int, patch: int = PATCH) -> tuple[int, int, int]:
        """Positions in time, and patches in height and width, whose phases a token averages."""
        t, h, w = kernel.patches
        return t, h * self.pool(patch), w * self.pool(patch)


class Deleted(Tail):
    """Left out."""

    name, note, brief = "td", "older frames are deleted", "deleted"
    kept = False

    def num_tokens(self, kernel: Kernel, num_lat_frames: int, height: int, width: int, patch: int = PATCH) -> int:
        """None."""
        return 0


class Appended(Tail):
    """Each frame averaged over 32x32 latents: 16x16 patches."""

    name, note, brief = "ta", "older frames are appended", "appended, each frame"

    def pool(self, patch: int = PATCH) -> int:
        """16 patches."""
        return 16 * patch


class Compressed(Tail):
    """All frames averaged into one."""

    name, note, brief = "tc", "older frames are averaged", "compressed, whole"

    def num_gathered(self, num_lat_frames: int) -> int:
        """One."""
        return 1

    def gather(self, latents: Any) -> Any:
        """Their mean, ``b c 1 h w``."""
        return latents.mean(2, keepdim=True)

    def cell(self, kernel: Kernel, num_lat_frames: int, patch: int = PATCH) -> tuple[int, int, int]:
        """All positions."""
        return num_lat_frames, *kernel.patches[1:]


TAILS = {tail.name: tail for tail in (Deleted(), Appended(), Compressed())}
_NO_TAIL = Tail()


def tail_of(name: str | None) -> Tail:
    """The tail of a context group; None stands for a group that is no tail."""
    return _NO_TAIL if name is None else TAILS[name]
