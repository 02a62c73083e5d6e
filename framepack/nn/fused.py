"""What makes a forward pass cheap where nothing looks on: fewer passes over memory, results in buffers of one's own.

Every piece has a plain twin which autograd and the compiler take (`alone` says when); both give the same numbers up
to rounding, and tests compare them. A layer's weight is read past its forward only where `resident` allows it.

Dims: b batch, l tokens, d width, n heads, e head dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import onednn
from .rope import Phases, part, rotate

CACHED = 2**18  # elements that stay in a core's cache over a few passes
ROWS = {"cpu": 1024}  # tokens at a time: enough that a product's own cost hides what its weights cost to lay out
ROWS_ELSEWHERE = 4096


def alone() -> bool:
    """Does nothing look on, no autograd, compiler or autocast? Then tensors of one's own may be written over."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))


def resident(*layers: nn.Module) -> bool:
    """Are these layers and all within them plain: weights as they are, which calls in pieces neither cast nor move?

    A host's layer may cast, move, patch or dequantise its weight in every call; it is called once, through its forward.
    """
    return all(_plain(module) for layer in layers for module in layer.modules())


def _plain(module: nn.Module) -> bool:
    weights = module._parameters.values()
    changed = [getattr(module, name, None) for name in ("comfy_cast_weights", "weight_function", "bias_function")]
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return not (hooked or any(changed)) and all(w is None or type(w) is nn.Parameter for w in weights)


def pieces(num: int, size: int) -> Iterator[slice]:
    """Slices over `num`, as even as can be, of at most `size`."""
    count = -(-num // size)
    return (slice(num * i // count, num * (i + 1) // count) for i in range(count))


def by_rows(function: Callable[..., Tensor], *inputs: Tensor, layers: Sequence[nn.Module]) -> Tensor:
    """function(*inputs), each ``b l ...`` and of use to its own token alone, in runs of tokens where the `layers`
    that it calls allow it.

    What the function makes on its way is then never whole in memory. Plain twin: the function itself.
    """
    if not alone():
        return function(*inputs)
    num, size = inputs[0].shape[1], ROWS.get(inputs[0].device.type, ROWS_ELSEWHERE)
    if num <= size or not resident(*layers):
        return function(*inputs)
    out: Tensor | None = None
    for rows in pieces(num, size):
        made = function(*(x[:, rows] for x in inputs))
        out = made.new_empty(made.shape[0], num, *made.shape[2:]) if out is None else out
        out[:, rows] = made
    assert out is not None
    return out


class Stream(NamedTuple):
    """Tokens ``b l d``, what projects them to heads and norms these, and the phases that turn the first of them.

    `across` says that the norm is over all heads together.
    """

    x: Tensor
    project: nn.Module
    norm: nn.Module | None = None
    phases: Phases | None = None
    across: bool = False


def side_by_side(heads: int, *streams: Stream) -> Tensor:
    """Every stream's heads, normed and turned, one stream after another: ``b l n e``, as wide together as x.

    Alone, they are made where they will lie; the plain twin makes them and copies them together.
    """
    if not alone():
        made = [_prepared(s.project(s.x).unflatten(-1, (heads, -1)), s) for s in streams]
        return made[0] if len(made) == 1 else torch.cat(made, 1)
    x, ends = streams[0].x, list(accumulate(s.x.shape[1] for s in streams))
    out = x.new_empty(x.shape[0], ends[-1], x.shape[2])
    for s, end in zip(streams, ends, strict=True):
        place = out[:, end - s.x.shape[1] : end]
        _project(s.project, s.x, place)
        _prepare(place.unflatten(-1, (heads, -1)), s)
    return out.unflatten(-1, (heads, -1))


def _prepared(x: Tensor, stream: Stream) -> Tensor:
    if stream.norm is not None:
        x = stream.norm(x.flatten(2)).view_as(x) if stream.across else stream.norm(x)
    return x if stream.phases is None else rotate(x, stream.phases)


def _prepare(x: Tensor, stream: Stream) -> None:
    """Norm and turn x ``b l n e`` over itself, as many tokens at a time as a cache holds."""
    if stream.norm is None and stream.phases is None:
        return
    whole = x.device.type != "cpu" or (stream.norm is not None and not resident(stream.norm))
    for rows in pieces(x.shape[1], x.shape[1] if whole else max(CACHED // x[0, 0].numel(), 1)):
        phases, here = stream.phases and part(stream.phases, rows), x[:, rows]
        made = _prepared(here, stream._replace(phases=phases if phases and len(phases[0]) else None))
        if made.data_ptr() != here.data_ptr():
            here.copy_(made)


def _project(layer: nn.Module, x: Tensor, out: Tensor) -> None:
    """A layer's result, each ``b l d``, written to its place."""
    if not _is_linear(layer):
        out.copy_(layer(x))
    elif _by_onednn(layer, x):
        out.copy_(onednn.linear(x, layer.weight, layer.bias))
    else:
        for item, place in zip(x, out, strict=True):
            torch.addmm(layer.bias, item, layer.weight.t(), out=place)


def _is_linear(layer: nn.Module) -> bool:
    """Is this a product with the weight that it holds, plus its bias, and no more?"""
    known = type(layer).forward is nn.Linear.forward or hasattr(layer, "comfy_cast_weights")
    return isinstance(layer, nn.Linear) and known and layer.bias is not None and resident(layer)


def _by_onednn(layer: nn.Module, x: Tensor) -> bool:
    """Is the layer's product faster by oneDNN? In bfloat16 PyTorch takes oneDNN itself."""
    return x.dtype == torch.float32 and onednn.multiplies(x, layer.weight)


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer of x ``... d``, by the fastest product there is. Plain twin: the layer itself."""
    if alone() and _is_linear(layer) and _by_onednn(layer, x):
        return onednn.linear(x, layer.weight, layer.bias)
    return layer(x)


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """GELU, in its tanh form, of a linear layer of x ``... d``; alone on a CPU the product applies it."""
    if alone() and _is_linear(layer) and onednn.multiplies(x, layer.weight):
        return onednn.linear(x, layer.weight, layer.bias, "gelu")
    return gelu_tanh(layer(x))


def linear_of_two(layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """A linear layer of x ``b l d`` and y ``b l d'`` side by side, as two products into one result, not of a copy."""
    if not (alone() and _is_linear(layer)):
        return layer(torch.cat([x, y], -1))
    d = x.shape[-1]
    out = F.linear(x, layer.weight[:, :d], layer.bias)
    out.flatten(0, 1).addmm_(y.flatten(0, 1), layer.weight[:, d:].t())
    return out


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form; alone it is written over x, so x must be the caller's own."""
    if not alone():
        return F.gelu(x, approximate="tanh")
    if x.device.type != "cpu" or not x.is_contiguous():
        return torch.ops.aten.gelu_(x, approximate="tanh")
    for run in x.view(-1).split(CACHED):
        _gelu_by_sigmoid_(run)
    return x


def _gelu_by_sigmoid_(x: Tensor) -> None:
    """The same function as x sigmoid(2 u), u the tanh's argument: on a CPU a tanh costs three times a sigmoid."""
    y = x.float()
    t = y.square()
    torch.addcmul(y, y, t, value=0.044715, out=t)
    t.mul_(math.sqrt(8 / math.pi)).sigmoid_()
    torch.mul(y, t, out=y)
    if y.data_ptr() != x.data_ptr():
        x.copy_(y)
