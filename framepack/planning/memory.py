"""The least memory that a section and a plan need, and what would fit where less is available.

All are lower bounds: whatever the host offloads or splits, a forward pass needs this much, so nothing is rejected
that would run. Weights are streamed layer by layer; a forward holds its activations and the largest matrix.

Dims: l tokens, d width; sizes on the latent grid are height by width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..errors import TooLittleMemoryError
from ..units import BASE, RELEASED, Geometry
from .plan import Plan
from .section import Section

# Tensors [l, d] of a block that are alive together: the tokens, q, k, v, and attention's output. Others run in pieces.
ALIVE = 5
LATENT_BYTES = 4  # finished sections are kept in float32
PIXEL_BYTES = 3 * 4  # of an image in the host
GB, MB = 1e9, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One section's forward pass: tokens that it generates and sees on a grid, by a model `model_width` wide.

    `itemsize` is the bytes of an activation, `matrix` those of the largest weight; `ranks` processes share the tokens.
    """

    section: Section
    height: int
    width: int
    model_width: int
    itemsize: int
    matrix: int
    geometry: Geometry = RELEASED
    ranks: int = 1

    @property
    def num_tokens(self) -> int:
        """Picture tokens l."""
        grid = self.height, self.width, self.geometry.patch
        return BASE.num_tokens(self.section.num_lat_frames, *grid) + self.section.num_context_tokens(*grid)

    @property
    def num_padded(self) -> int:
        """Latent positions of its largest context group, padded to whole kernels before it becomes tokens."""
        grid = self.height, self.width, self.geometry.patch
        return max((context.num_padded(*grid) for context in self.section.context), default=0)

    @property
    def least(self) -> int:
        """Bytes that a process needs at least: for its blocks, or before them for the largest context group."""
        own = self.num_tokens // self.ranks
        blocks = ALIVE * own * self.model_width * self.itemsize + self.matrix
        return max(blocks, self.num_padded * self.geometry.channels * self.itemsize)


def check_work(work: Work, there: int) -> None:
    """Raises TooLittleMemoryError, with what would fit, where a section needs more bytes than are available."""
    if work.least <= there:
        return
    h, w = (work.geometry.spatial * n for n in (work.height, work.width))
    raise TooLittleMemoryError(
        f"A section of {work.section.num_lat_frames} latent frames at {w}x{h} needs at least {_amount(work.least)} "
        f"({work.num_tokens} tokens); only {_amount(there)} is available. {_remedy(_fitting(work, there))}"
    )


def check_plan(plan: Plan, there: int, images: bool = False) -> None:
    """Raises TooLittleMemoryError where a plan's results need more bytes than are available.

    These are its latents and, with `images`, all of its decoded frames.
    """
    assert plan.height and plan.width, "a plan that is sampled states its size"
    geometry = plan.geometry
    latent = geometry.channels * LATENT_BYTES * plan.height * plan.width // geometry.spatial**2
    image = PIXEL_BYTES * plan.height * plan.width if images else 0
    least = plan.num_lat_frames * latent + plan.num_pix_frames * image
    if least <= there:
        return
    per_section = max(section.num_lat_frames for section in plan.sections)
    fits = (there // (latent + geometry.temporal * image) - 1) // per_section  # and a start image
    num_frames = geometry.section_frames(per_section) * fits + 1
    fitting = [f"{fits} sections ({num_frames} frames)"] if fits > 0 else []
    if images and plan.num_lat_frames * latent <= there:
        fitting.append("vae disconnected and the video saved through FramePackVideo, which keeps no images")
    raise TooLittleMemoryError(
        f"The latents {'and images ' if images else ''}of {len(plan.sections)} sections at {plan.width}x{plan.height} "
        f"need {_amount(least)}; only {_amount(there)} is available. {_remedy(fitting)}"
    )


def _fitting(work: Work, there: int) -> Iterable[str]:
    """What would fit, each alone: fewer frames a section, a smaller size, half the precision."""

    def fits(**changes: object) -> bool:
        return replace(work, **changes).least <= there

    def frames(num: int) -> bool:
        return fits(section=replace(work.section, makes=((0, num),), positions=tuple(range(num))))

    if num := _largest(work.section.num_lat_frames, frames):
        yield f"sections of {num} latent frames"
    unit, spatial = work.geometry.patch, work.geometry.spatial
    rows = work.height // unit
    sizes = [(unit * n, unit * max(work.width * n // (unit * rows), 1)) for n in range(1, rows)]
    if num := _largest(len(sizes) + 1, lambda n: fits(height=sizes[n - 1][0], width=sizes[n - 1][1])):
        height, width = (spatial * n for n in sizes[num - 1])
        yield f"a size of {width}x{height}"
    if work.itemsize > 2 and fits(itemsize=2, matrix=work.matrix // 2):
        yield "half precision (weight_dtype bf16)"


def _largest(below: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 up to, and without, `below` that fits; 0 for none."""
    return next((num for num in range(below - 1, 0, -1) if fits(num)), 0)


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB / 10 else f"{num_bytes / MB:.1f} MB"


def _remedy(fitting: Iterable[str]) -> str:
    found = list(fitting)
    return f"What fits: {', or '.join(found)}." if found else "Free memory, or use another device."
