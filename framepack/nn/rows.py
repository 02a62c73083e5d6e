"""Runs of rows: a function that makes each token from that token alone is called on some of the tokens at a time.

Its intermediate results, such as a feed-forward's wide ones, are then never whole in memory. This is the one place
that trades calls for memory; the functions themselves know nothing of it.

Dims: b batch, l tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

ROWS = {"cpu": 512}  # tokens in a run: enough that reading a layer's weights costs little beside the product
ROWS_ELSEWHERE = 4096

Segment = tuple[Any, ...]  # a function, and its inputs, each b l ... with the same l; it gives one tensor or a tuple
Rows = Callable[..., Any]


def at_once(*segments: Segment) -> Any:
    """Call each segment's function on its inputs; join what they give, ``b l ...``, along l."""
    made = [function(*inputs) for function, *inputs in segments]
    if len(made) == 1:
        return made[0]
    if isinstance(made[0], Tensor):
        return torch.cat(made, 1)
    return tuple(torch.cat(parts, 1) for parts in zip(*made, strict=True))


def in_runs(*segments: Segment) -> Any:
    """The same as `at_once`, each function called on runs of rows. Autograd and the compiler get `at_once` itself."""
    lengths = [inputs[0].shape[1] for _, *inputs in segments]
    size = ROWS.get(segments[0][1].device.type, ROWS_ELSEWHERE)
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or (len(segments) == 1 and lengths[0] <= size):
        return at_once(*segments)
    whole: list[Tensor] = []
    start, single = 0, False
    for (function, *inputs), length in zip(segments, lengths, strict=True):
        for rows in pieces(length, size):
            made = function(*(x[:, rows] for x in inputs))
            single = isinstance(made, Tensor)
            parts = (made,) if single else made
            whole = whole or [part.new_empty(part.shape[0], sum(lengths), *part.shape[2:]) for part in parts]
            for out, part in zip(whole, parts, strict=True):
                out[:, start + rows.start : start + rows.stop] = part
        start += length
    return whole[0] if single else tuple(whole)


def pieces(num: int, size: int) -> Iterator[slice]:
    """Slices over `num` of nearly equal length, at most `size`."""
    count = max(-(-num // size), 1)
    return (slice(num * i // count, num * (i + 1) // count) for i in range(count))


def takes_runs(module: nn.Module) -> bool:
    """Do several calls of a module's layers cost what one call does, with no one watching the calls?

    False where a layer has hooks, a replaced forward, or weights that each call decodes first (tensor subclasses).
    """
    return all(_is_plain(layer) for layer in module.modules() if layer is not module)


def _is_plain(layer: nn.Module) -> bool:
    watched = layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__
    return not watched and all(w is None or type(w) is nn.Parameter for w in layer._parameters.values())
