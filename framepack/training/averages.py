"""The running mean of the weights, kept in float32 (EMA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The mean of named parameters. Early on it follows them faster, so that it forgets where they began."""

    def __init__(self, decay: float):
        self.decay = decay
        self.mean: dict[str, Tensor] = {}

    def follow(self, named: Mapping[str, nn.Parameter]) -> None:
        """Hold the mean of these parameters; those that it holds already keep their mean."""
        for name, parameter in named.items():
            if name not in self.mean:
                self.mean[name] = parameter.detach().float().clone()

    @torch.no_grad()
    def take(self, named: Mapping[str, nn.Parameter], step: int) -> None:
        """Move towards the parameters after a step."""
        share = max(1 - self.decay, 1 / (step / 10 + 1))
        means = [self.mean[name] for name in named]
        move = get_ema_multi_avg_fn(1 - share)
        move(means, [parameter.detach().float() for parameter in named.values()], 0)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """The model has the mean for its weights inside the block."""
        named = dict(model.named_parameters())
        kept = {name: named[name].detach().clone() for name in self.mean}
        with torch.no_grad():
            for name, mean in self.mean.items():
                named[name].copy_(mean)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    named[name].copy_(value)
