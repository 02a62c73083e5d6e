"""The floor of a forward pass: its matrix products, convolutions and attention alone, replayed on their own inputs.

floor = Floor.record(lambda: model(x))
floor.replay()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = ("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm", "aten.convolution", "aten._scaled_dot_product")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple, dict]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        kwargs = kwargs or {}
        if str(func).startswith(PRODUCTS):
            self.calls.append((func, args, kwargs))
        return func(*args, **kwargs)


@dataclass(slots=True)
class Floor:
    """The recorded products of one forward."""

    calls: list[tuple[Callable[..., Any], tuple, dict]] = field(default_factory=list)

    @classmethod
    @torch.no_grad()
    def record(cls, forward: Callable[[], Any]) -> Floor:
        """Run a forward once and keep its products with their inputs."""
        recorder = _Recorder()
        with recorder:
            forward()
        return cls(recorder.calls)

    @torch.no_grad()
    def replay(self) -> None:
        """Run the products alone."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)
