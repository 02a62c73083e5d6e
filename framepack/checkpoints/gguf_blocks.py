"""GGUF's blocks of quantized values to float32, in PyTorch, on any device; equal to the package gguf's, bit for bit.

A row of a matrix is a row of blocks. A block of 32 or 256 values has its scales, in float16 or as small integers, and
the values' bits. Dims: n blocks.

On CUDA a type's steps are compiled into one kernel where PyTorch can compile. A kernel may round a product and a sum
once, so values may differ from the package's in the last bit of float32. No constant is copied to the device while a
model runs, because such a copy waits for all that the device has still to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ROWS = 1024  # of a matrix that are dequantized at a time on a CPU, so that a wide one needs no wide copy
AT_ONCE = 2**25  # values elsewhere: a GPU wants long work
NIBBLES, PAIRS, BITS = (0, 4), (0, 2, 4, 6), tuple(range(8))
TABLE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # the values of IQ4


def halves(part: Tensor) -> Tensor:
    """Bytes ``n 2k`` of float16 -> float32 ``n k``."""
    return part.contiguous().view(torch.float16).float()


def fields(part: Tensor, width: int, shifts: Sequence[int]) -> Tensor:
    """Bytes in groups of `width`, each shifted in turn and cut to a field: ``n (groups shifts width)``."""
    mask = (1 << (8 // len(shifts))) - 1
    groups = part.reshape(len(part), -1, width)
    return (torch.stack([groups >> by for by in shifts], 2) & mask).reshape(len(part), -1)


def _q4_0(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * (fields(b[:, 2:], 16, NIBBLES).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * fields(b[:, 4:], 16, NIBBLES).float() + halves(b[:, 2:4])


def _fifth(low: Tensor, high: Tensor) -> Tensor:
    """Four bits of each value, and a fifth from one bit of each ``n 4``."""
    return (fields(low, 16, NIBBLES) | (fields(high, 1, BITS) << 4)).float()


def _q5_0(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * (_fifth(b[:, 6:], b[:, 2:6]) - 16)


def _q5_1(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * _fifth(b[:, 8:], b[:, 4:8]) + halves(b[:, 2:4])


def _q8_0(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * b[:, 2:].view(torch.int8).float()


def _scaled(values: Tensor, scales: Tensor, minima: Tensor | None = None) -> Tensor:
    """Values ``n 256`` in as many groups as there are scales ``n g``: times the scale, less the minimum."""
    out = scales[..., None] * values.reshape(*scales.shape, -1).float()
    return (out if minima is None else out - minima[..., None]).reshape(len(values), -1)


def _q2_k(b: Tensor) -> Tensor:
    scales, d, least = b[:, :16], halves(b[:, 80:82]), halves(b[:, 82:84])
    return _scaled(fields(b[:, 16:80], 32, PAIRS), d * (scales & 15).float(), least * (scales >> 4).float())


def _q3_k(b: Tensor) -> Tensor:
    low, high = fields(b[:, 96:104], 8, NIBBLES), fields(b[:, 104:108], 4, PAIRS)
    scales = halves(b[:, 108:110]) * ((low | (high << 4)).float() - 32)
    values = fields(b[:, 32:96], 32, PAIRS).float() - 4 * (1 - fields(b[:, :32], 32, BITS).float())
    return _scaled(values, scales)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Six bits each of eight scales and minima ``n 12``: the first four of each whole, the rest in two parts."""
    first, second, rest = packed.split(4, 1)
    scales = torch.cat([first & 63, (rest & 15) | ((first >> 2) & 48)], 1)
    minima = torch.cat([second & 63, (rest >> 4) | ((second >> 2) & 48)], 1)
    return scales.float(), minima.float()


def _q4_k(b: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b[:, 4:16])
    return _scaled(fields(b[:, 16:], 32, NIBBLES), halves(b[:, :2]) * scales, halves(b[:, 2:4]) * minima)


def _q5_k(b: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b[:, 4:16])
    values = fields(b[:, 48:], 32, NIBBLES) | (fields(b[:, 16:48], 32, BITS) << 4)
    return _scaled(values, halves(b[:, :2]) * scales, halves(b[:, 2:4]) * minima)


def _q6_k(b: Tensor) -> Tensor:
    values = (fields(b[:, :128], 64, NIBBLES) | (fields(b[:, 128:192], 32, PAIRS) << 4)).float() - 32
    return _scaled(values, halves(b[:, 208:210]) * b[:, 192:208].view(torch.int8).float())


@cache
def _table(device: torch.device) -> Tensor:
    return torch.tensor(TABLE, dtype=torch.float32, device=device)


def _from_table(part: Tensor) -> Tensor:
    return _table(part.device)[fields(part, 16, NIBBLES).long()]


def _iq4_nl(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * _from_table(b[:, 2:])


def _iq4_xs(b: Tensor) -> Tensor:
    low, high = fields(b[:, 4:8], 1, NIBBLES), fields(b[:, 2:4], 1, PAIRS)
    return _scaled(_from_table(b[:, 8:]), halves(b[:, :2]) * ((low | (high << 4)).float() - 32))


# By type: values of a block, its bytes, and how it is read.
BLOCKS: dict[str, tuple[int, int, Callable[[Tensor], Tensor]]] = {
    "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1),
    "Q5_0": (32, 22, _q5_0),
    "Q5_1": (32, 24, _q5_1),
    "Q8_0": (32, 34, _q8_0),
    "Q2_K": (256, 84, _q2_k),
    "Q3_K": (256, 110, _q3_k),
    "Q4_K": (256, 144, _q4_k),
    "Q5_K": (256, 176, _q5_k),
    "Q6_K": (256, 210, _q6_k),
    "IQ4_NL": (32, 18, _iq4_nl),
    "IQ4_XS": (256, 136, _iq4_xs),
}


def dequantized(packed: Tensor, kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Blocks, bytes ``rows bytes`` of a type -> values ``rows columns``, computed in float32."""
    if packed.is_cuda and not torch.compiler.is_compiling():
        return _on_cuda()(packed, kind, dtype)
    return in_parts(packed, kind, dtype)


def in_parts(packed: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """The same, step by step, in parts that bound the memory of the steps."""
    values, size, _ = BLOCKS[kind]
    columns = packed.shape[1] // size * values
    rows = ROWS if packed.device.type == "cpu" else max(AT_ONCE // columns, 1)
    out = torch.empty(len(packed), columns, dtype=dtype, device=packed.device)
    for part, target in zip(packed.split(rows), out.split(rows), strict=True):
        target.copy_(whole(part, kind, torch.float32))
    return out


def whole(packed: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """The same at once; a compiler makes one kernel of it."""
    _, size, read = BLOCKS[kind]
    return read(packed.reshape(-1, size)).to(dtype).view(len(packed), -1)


@cache
def _on_cuda() -> Callable[[Tensor, str, torch.dtype], Tensor]:
    """Compiled for any size, if a trial works: it needs Triton, a C compiler, and a GPU that Triton knows."""
    compiled = torch.compile(whole, dynamic=True)
    try:
        compiled(torch.zeros(4, 68, dtype=torch.uint8, device="cuda"), "Q8_0", torch.float16)
    except (RuntimeError, ImportError, OSError) as fault:
        reason = str(fault).strip().partition("\n")[0]
        log.warning(
            "GGUF's blocks are dequantized step by step, which is slower: PyTorch cannot compile: %.200s", reason
        )
        return in_parts
    return compiled
