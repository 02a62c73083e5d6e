"""A DiT with a conditioning for each prompt, as the engine asks for it: one velocity for each pass of guidance.

Dims: b batch, c channels, t h w latent grid.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..models.memo import KEY, Constants, Store
from ..models.packed import PackedDiT, check_causal
from ..packing.history import ContextGroup
from .guidance import ALL, HISTORY, blank

Condition = Mapping[str, Tensor]  # a DiT's inputs by name, such as context, y, attention_mask, guidance, image


@dataclass(frozen=True, slots=True, kw_only=True)
class DitDenoiser:
    """`prompts` holds a conditioning for each prompt of a plan's sections, None for those without one of their own.

    `negative` is the second pass's. The DiT runs in `dtype` on `device`. With `causal` history sees history only; its
    keys and values are kept in `kept` for the section's steps. Raises FramePackError for a backbone without that mode.
    """

    dit: PackedDiT
    prompts: Mapping[Hashable, Condition]
    negative: Condition
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    causal: bool = False
    kept: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        if self.causal:
            check_causal(self.dit)

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        passes: Sequence[str],
        *,
        prompt: Hashable,
        positions: Sequence[int],
        history: Sequence[ContextGroup],
    ) -> list[Tensor]:
        """Velocities ``b c t h w`` like x, one for each pass; passes of one shape run in one batch."""
        given = [
            (self.prompts[prompt] if name == ALL else self.negative, blank(history) if name == HISTORY else history)
            for name in passes
        ]
        shapes = [{name: value.shape for name, value in condition.items()} for condition, _ in given]
        if all(shape == shapes[0] for shape in shapes):
            return list(self._run(x, sigma, given, positions).split(len(x)))
        return [self._run(x, sigma, [one], positions) for one in given]

    def _run(
        self,
        x: Tensor,
        sigma: Tensor,
        given: Sequence[tuple[Condition, Sequence[ContextGroup]]],
        positions: Sequence[int],
    ) -> Tensor:
        conditions, histories = zip(*given, strict=True)
        inputs: dict[str, Any] = {
            name: self._placed(torch.cat([c[name] for c in conditions])) for name in conditions[0]
        }
        groups = [_stacked(parts) for parts in zip(*histories, strict=True)]
        groups = [replace(group, latents=self._placed(group.latents)) for group in groups]
        many = self._placed(x.repeat(len(given), 1, 1, 1, 1))
        levels = (sigma.expand(len(many)) * 1000).to(self.device)
        if self.causal:
            inputs |= {"causal_history": True, "transformer_options": {KEY: Constants(self.kept)}}
        return self.dit(many, levels, positions=positions, history=groups, **inputs).to(x)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)


def _stacked(groups: Sequence[ContextGroup]) -> ContextGroup:
    """The same group of several passes, in one batch."""
    return replace(groups[0], latents=torch.cat([group.latents for group in groups]))
