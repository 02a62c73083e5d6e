"""The memory that a training step takes, found by a run of it on tensors without values.

Forward and backward run on PyTorch's meta device, which allocates nothing, while every tensor's size is counted as long
as it lives. So the figure follows the backbone, the batch, the section and recomputation, whatever they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .loss import Batch, loss_of, moved
from .trainees import Recompute


class Tally(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside it, now and at their most; views of others count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((*args, *(kwargs or {}).values())):
            self._count(storage, 0)  # what is not known yet was made outside
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out if isinstance(out, tuple | list) else (out,)):
            self._count(storage, storage.nbytes())
        return out

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    for value in values:
        if isinstance(value, Tensor):
            yield value.untyped_storage()
        elif isinstance(value, tuple | list):
            yield from _storages(value)


class _Flash(torch.autograd.Function):
    """Attention's memory as fused kernels take it: what goes in, what comes out, and a sum for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, sums = torch.empty_like(q), q.new_empty(q.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        q, k, v, _, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


class _Fused(TorchFunctionMode):
    """Puts `_Flash` in the place of PyTorch's attention, which has no fused kernel on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Flash.apply(*args[:3])
        return func(*args, **(kwargs or {}))


def _forget(parameter: Tensor) -> None:
    parameter.grad = None


class _Step(nn.Module):
    """Forward and backward as one call, so that recomputation, too, finds the weights that the call was given."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, words: Mapping[str, Tensor]) -> None:
        torch.autograd.backward(loss_of(self.model, batch, words).sum())


def step_memory(
    model: nn.Module,
    batch: Batch,
    words: Mapping[str, Tensor],
    recompute: Recompute | None = None,
    gradients: bool = True,
) -> int:
    """Bytes that forward and backward take at their most, beside the weights: activations, inputs, and gradients.

    Without `gradients` each is gone as soon as it is whole, as where it is shared out over processes.
    """
    tally = Tally()
    run_without_values(model, batch, words, recompute, counter=tally, gradients=gradients)
    return tally.most


def run_without_values(
    model: nn.Module,
    batch: Batch,
    words: Mapping[str, Tensor],
    recompute: Recompute | None = None,
    *,
    counter: AbstractContextManager[Any],
    fused: bool = True,
    gradients: bool = True,
) -> None:
    """Forward and backward of a batch on the meta device inside a counter; `fused`: attention is one kernel."""
    step, around = _Step(model), _Fused if fused else nullcontext
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in step.named_buffers()}
    for name, parameter in step.named_parameters():
        empty[name] = torch.empty_like(parameter, device="meta").requires_grad_(parameter.requires_grad)
        if parameter.requires_grad and not gradients:
            empty[name].register_post_accumulate_grad_hook(_forget)
    batch, inputs = moved(batch, words, torch.device("meta"), batch.noisy.dtype)
    if recompute:
        recompute.within = around
    try:
        with counter, around():
            torch.func.functional_call(step, empty, (batch, inputs))
    finally:
        if recompute:
            recompute.within = nullcontext
