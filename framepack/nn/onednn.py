"""Products, attention and convolutions on a CPU through oneDNN, which comes with PyTorch, where PyTorch itself takes
slower ones.

float32 products go through it instead of BLAS; a product applies GELU while its result is in registers; attention
in bfloat16 is two products, since the exponential between them is a part of the first; and small convolutions over
time, of a narrow VAE, go through it as large ones do.

Dims: b batch, n heads, l queries, s keys, e head dim; c channels, t h w picture.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

FEWEST_ROWS = 64  # below it a product is bound by reading its weights
FEWEST_SCORES = 2**19  # of a head: below it the calls cost more than they save
QUERIES = 192  # at a time: a head's weights for as many stay in a core's cache
MARGIN = 10.0  # sigmoid(x) is e^x to a relative e^x: at -10 to 5e-5, where bfloat16 rounds to 2e-3
ABOVE = 1 + 2**-7  # so that a bound is one after it was rounded to bfloat16, by up to a part in 2^8
LEAST_SUM = 1e-30  # of a query's weights, far above what bfloat16 flushes to zero


def _has(x: Tensor) -> bool:
    """Does oneDNN have products of x's kind?"""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Does oneDNN have a good product of x ``... d``, with rows enough, and a weight ``d' d``?

    Of a weight that is a part of another it has a bad one: it took a thousand times as long.
    """
    whole = x.dtype == weight.dtype and weight.is_contiguous()
    return whole and x.numel() >= FEWEST_ROWS * x.shape[-1] and _has(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """``activation(x weight^T + bias)``; weight ``d' d``, activation none, gelu (in its tanh form) or sigmoid."""
    algorithm = "tanh" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)


def attends(q: Tensor, k: Tensor) -> bool:
    """Is `attention` the fastest for q ``b n l e`` and k ``b n s e``? Where there is AMX, PyTorch's own is better."""
    if q.dtype != torch.bfloat16 or q.shape[2] * k.shape[2] < FEWEST_SCORES or not _has(q):
        return False
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in bfloat16 with scores in float32: q ``b n l e``, k and v ``b n s e`` -> ``b l n e``.

    A product rounds its result to bfloat16, too coarse for scores; but it can take the sigmoid of them first, and
    where its argument is below -MARGIN the sigmoid is the exponential. So each query's scores are lowered by what they
    cannot exceed, |q| max |k|, and by the margin; the weights' sum divides out whatever that was. Where a bound is so
    loose that weights would vanish, the head goes through PyTorch's attention.
    """
    out = q.new_empty(q.transpose(1, 2).shape)
    for item, head in product(range(q.shape[0]), range(q.shape[1])):
        queries, keys, values = q[item, head], k[item, head].contiguous(), v[item, head].t().contiguous()
        if not _attend(queries * q.shape[-1] ** -0.5, keys, values, out[item, :, head]):
            exact = F.scaled_dot_product_attention(*(x[item : item + 1, head : head + 1] for x in (q, k, v)))
            out[item, :, head] = exact[0, 0]
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> bool:
    """One head: scaled q ``l e``, k ``s e``, v ``e s`` -> out ``l e``; False where weights would vanish."""
    bound = _lengths(q) * _lengths(k).amax()
    lowered = (-(ABOVE * bound + MARGIN)).to(q.dtype)
    for queries, shift, place in zip(*(x.split(QUERIES) for x in (q, lowered, out)), strict=True):
        weights = linear(k, queries, shift, "sigmoid")  # s l
        total = weights.sum(0, dtype=torch.float32)
        if not total.amin() >= LEAST_SUM:  # nor where it is no number
            return False
        torch.div((v @ weights).t(), total[:, None], out=place)
    return True


def _lengths(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32)


class Convolutions(TorchFunctionMode):
    """Within it, whoever's module asks for it, a convolution over time on a CPU goes through oneDNN, channels last.

    PyTorch takes a slow one of its own for one float32 item with c t h up to 20480, however wide it is. Where a result
    must have a gradient, or a compiler looks on, it is left alone.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Called by PyTorch in the place of each of its functions."""
        ours = func is torch.conv3d and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return (_conv3d if ours else func)(*args, **(kwargs or {}))


def _conv3d(
    input: Tensor,  # noqa: A002 - torch's name, by which it may be given
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch.conv3d of input ``b c t h w``."""
    if input.ndim != 5 or input.dtype != weight.dtype or isinstance(padding, str) or not _has(input):
        return torch.conv3d(input, weight, bias, stride, padding, dilation, groups)
    x, weight = (part.contiguous(memory_format=torch.channels_last_3d) for part in (input, weight))
    sizes = ((n,) * 3 if isinstance(n, int) else tuple(n) for n in (padding, stride, dilation))
    return torch.ops.aten.mkldnn_convolution(x, weight, bias, *sizes, groups)
