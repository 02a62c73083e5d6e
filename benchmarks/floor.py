"""The floor of a forward pass: its matrix products, convolutions and attention alone, replayed on their own inputs.

Products write into buffers that are there already, one for each shape; convolutions and attention, which take none,
make their results.

floor = Floor.record(lambda: model(x))
floor.replay()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

INTO_BUFFERS = ("aten.mm.", "aten.addmm.", "aten.bmm.", "aten.baddbmm.")
OTHERS = ("aten.convolution", "aten._scaled_dot_product", "aten._fused_sdp", "aten.addmm_.")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple, dict]] = []
        self.buffers: dict[tuple, Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001 - torch's signature
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = str(func)
        if name.startswith(INTO_BUFFERS):
            buffer = kwargs.get("out")
            if buffer is None:
                buffer = self.buffers.setdefault((out.shape, out.dtype), torch.empty_like(out))
            self.calls.append((func.overloadpacket.out, args, {**kwargs, "out": buffer}))
        elif name.startswith(OTHERS):
            self.calls.append((func, args, kwargs))
        return out


@dataclass(slots=True)
class Floor:
    """The recorded products of one forward."""

    calls: list[tuple[Callable[..., Any], tuple, dict]] = field(default_factory=list)

    @classmethod
    def record(cls, forward: Callable[[], Any]) -> Floor:
        """Run a forward once and keep its products with their inputs.

        Autograd is on while it runs, so that products are recorded whole instead of in runs of rows. The weights must
        not require a gradient.
        """
        recorder = _Recorder()
        with torch.enable_grad(), recorder:
            forward()
        return cls(recorder.calls)

    @torch.no_grad()
    def replay(self) -> None:
        """Run the products alone."""
        for func, args, kwargs in self.calls:
            func(*args, **kwargs)
