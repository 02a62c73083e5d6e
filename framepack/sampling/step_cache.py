"""A step cache by the first block: where its residual has hardly changed, the other blocks' residual is reused.

The rule needs no calibration (first-block caching). State belongs to one run over one section's noise levels, and is
kept apart for the positive and the negative pass. The first step and the last are always computed.

Dims: b batch, l tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import FramePackError


@dataclass(slots=True)
class _Kept:
    first: Tensor  # the first block's residual, of the last step that was computed
    rest: Tensor  # what all other blocks added to the tokens that are read


@dataclass(slots=True)
class StepCache:
    """One run's cache. `threshold` bounds the relative change of the first block's residual; 0 computes every step."""

    threshold: float
    computed: int = 0
    skipped: int = 0
    _kept: dict[Hashable, _Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise FramePackError(f"a threshold of {self.threshold:g} came; expected 0 to 1, such as 0.1")

    def run(
        self, key: Hashable, final: bool, x: Tensor, after_first: Tensor, rest: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Picture tokens ``b l d`` after all blocks, those that are read: the last ones.

        `key` names the pass; `final` is the last step; `x` went into the first block, `after_first` came out; `rest`
        runs all other blocks.
        """
        first, kept = after_first - x, self._kept.get(key)
        if kept is not None and not final and kept.first.shape == first.shape and self.threshold:
            change = (first - kept.first).abs().mean() / kept.first.abs().mean().clamp_min(1e-12)
            if float(change) < self.threshold:
                self.skipped += 1
                return _last(after_first, kept.rest) + kept.rest
        out = rest(after_first)
        self.computed += 1
        self._kept[key] = _Kept(first, out - _last(after_first, out))
        return out


def _last(x: Tensor, like: Tensor) -> Tensor:
    return x[:, x.shape[1] - like.shape[1] :]
