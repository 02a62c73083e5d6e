"""The cost of a step by its tokens, at the size of the released models (HunyuanVideo's 20 + 40 blocks, 3072 wide).

Per token and block 24 d^2 operations go into matrix products, and 4 d into attention to each other token; both kinds
of blocks have the same number of each. Only ratios of costs have a meaning.
"""

from __future__ import annotations

from ..schedule.grammar import Schedule, count_tokens
from ..units import BASE, PATCH

WIDTH = 3072
LAT_FRAMES_PER_MINUTE = 450  # at 30 frames a second


def cost(num_tokens: int) -> int:
    """The cost of a step over so many tokens, in units of 4 d operations per block."""
    return num_tokens * (6 * WIDTH + num_tokens)


def against_full(
    schedule: Schedule, height: int, width: int, num_lat_frames: int | None = None, patch: int = PATCH
) -> float:
    """How many times a step costs more with its context uncompressed, on a latent grid of height by width.

    The context is the schedule's own frames, or a history of `num_lat_frames`.
    """
    tokens = count_tokens(schedule, height, width, patch)
    frames = sum(g.num_lat_frames for g in schedule.groups) if num_lat_frames is None else num_lat_frames
    full = tokens.generated + frames * BASE.num_tokens(1, height, width, patch)
    return cost(full) / cost(tokens.total)
