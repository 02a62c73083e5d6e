"""GGUF's blocks of quantized values to float32, in PyTorch, on any device; equal to the package gguf's, bit for bit.

A row of a matrix is a row of blocks. A block of 32 or 256 values has its scales, in float16 or as small integers, and
the values' bits. Dims: n blocks.

On CUDA a type's steps are compiled into one kernel where PyTorch can compile. A kernel may round a product and a sum
once, so values may differ from the package's in the last bit of float32. No constant is copied to the device while a
model runs, because such a copy waits for all that the device has still to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from types import FunctionType

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ROWS = 1024  # of a matrix that are dequantized at a time on a CPU, so that a wide one needs no wide copy
AT_ONCE = 2**25  # values elsewhere: a GPU wants long work
TABLE = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # the values of IQ4


class _Tables(dict[torch.device, Tensor]):
    """The table on each device. A compiler reads a dictionary's tensor, and would copy a new one at every call."""

    def __missing__(self, device: torch.device) -> Tensor:
        return self.setdefault(device, torch.tensor(TABLE, dtype=torch.float32, device=device))


_TABLES = _Tables()


def halves(part: Tensor) -> Tensor:
    """Bytes ``n 2k`` of float16 -> float32 ``n k``, put together bit by bit: a compiler makes no copy for it."""
    low, high = part[:, ::2].short(), part[:, 1::2].short()
    return (low | (high << 8)).view(torch.float16).float()


def fields(part: Tensor, width: int, bits: int) -> Tensor:
    """Bytes in groups of `width`, cut into fields of so many bits, lowest first: ``n (groups fields width)``."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=part.device)
    groups = part.unflatten(1, (-1, 1, width))
    return ((groups >> shifts[:, None]) & ((1 << bits) - 1)).flatten(1)


def _q4_0(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * (fields(b[:, 2:], 16, 4).float() - 8)


def _q4_1(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * fields(b[:, 4:], 16, 4).float() + halves(b[:, 2:4])


def _fifth(low: Tensor, high: Tensor) -> Tensor:
    """Four bits of each value, and a fifth from one bit of each ``n 4``."""
    return (fields(low, 16, 4) | (fields(high, 1, 1) << 4)).float()


def _q5_0(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * (_fifth(b[:, 6:], b[:, 2:6]) - 16)


def _q5_1(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * _fifth(b[:, 8:], b[:, 4:8]) + halves(b[:, 2:4])


def _q8_0(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * b[:, 2:].view(torch.int8).float()


def _scaled(values: Tensor, scales: Tensor, minima: Tensor | None = None) -> Tensor:
    """Values ``n 256`` in as many groups as there are scales ``n g``: times the scale, less the minimum."""
    out = scales[..., None] * values.unflatten(1, (scales.shape[1], -1)).float()
    return (out if minima is None else out - minima[..., None]).flatten(1)


def _q2_k(b: Tensor) -> Tensor:
    scales, d, least = b[:, :16], halves(b[:, 80:82]), halves(b[:, 82:84])
    return _scaled(fields(b[:, 16:80], 32, 2), d * (scales & 15).float(), least * (scales >> 4).float())


def _q3_k(b: Tensor) -> Tensor:
    low, high = fields(b[:, 96:104], 8, 4), fields(b[:, 104:108], 4, 2)
    scales = halves(b[:, 108:110]) * ((low | (high << 4)).float() - 32)
    values = fields(b[:, 32:96], 32, 2).float() - 4 * (1 - fields(b[:, :32], 32, 1).float())
    return _scaled(values, scales)


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Six bits each of eight scales and minima ``n 12``: the first four of each whole, the rest in two parts."""
    first, second, rest = packed[:, None].expand(-1, 2, -1).split(4, 2)
    late = torch.arange(2, device=packed.device)[:, None] == 1
    scales = torch.where(late, (rest & 15) | ((first >> 2) & 48), first & 63)
    minima = torch.where(late, (rest >> 4) | ((second >> 2) & 48), second & 63)
    return scales.flatten(1).float(), minima.flatten(1).float()


def _q4_k(b: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b[:, 4:16])
    return _scaled(fields(b[:, 16:], 32, 4), halves(b[:, :2]) * scales, halves(b[:, 2:4]) * minima)


def _q5_k(b: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(b[:, 4:16])
    values = fields(b[:, 48:], 32, 4) | (fields(b[:, 16:48], 32, 1) << 4)
    return _scaled(values, halves(b[:, :2]) * scales, halves(b[:, 2:4]) * minima)


def _q6_k(b: Tensor) -> Tensor:
    values = (fields(b[:, :128], 64, 4) | (fields(b[:, 128:192], 32, 2) << 4)).float() - 32
    return _scaled(values, halves(b[:, 208:210]) * b[:, 192:208].view(torch.int8).float())


def _from_table(part: Tensor) -> Tensor:
    return _TABLES[part.device][fields(part, 16, 4).long()]


def _iq4_nl(b: Tensor) -> Tensor:
    return halves(b[:, :2]) * _from_table(b[:, 2:])


def _iq4_xs(b: Tensor) -> Tensor:
    low, high = fields(b[:, 4:8], 1, 4), fields(b[:, 2:4], 1, 2)
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
    if packed.is_cuda and not torch.compiler.is_compiling() and _compiles():
        _TABLES[packed.device]  # is there before the compiler looks for it
        return compiled(kind)(packed.reshape(-1), kind, dtype).view(len(packed), -1)
    return in_parts(packed, kind, dtype)


def in_parts(packed: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """The same, step by step, in parts that bound the memory of the steps."""
    values, size, _ = BLOCKS[kind]
    columns = packed.shape[1] // size * values
    rows = ROWS if packed.device.type == "cpu" else max(AT_ONCE // columns, 1)
    out = torch.empty(len(packed), columns, dtype=dtype, device=packed.device)
    for part, target in zip(packed.split(rows), out.split(rows), strict=True):
        target.copy_(whole(part.reshape(-1), kind, torch.float32).view_as(target))
    return out


def whole(packed: Tensor, kind: str, dtype: torch.dtype) -> Tensor:
    """Bytes of whole blocks, in one axis, to values ``n values``. A compiler makes one kernel of it.

    All axes but the blocks' have sizes that it knows, so that the kernel divides by no variable.
    """
    _, size, read = BLOCKS[kind]
    return read(packed.view(-1, size)).to(dtype)


@cache
def compiled(kind: str, backend: str | Callable = "inductor") -> Callable[[Tensor, str, torch.dtype], Tensor]:
    """`whole`, compiled for a type and any size.

    PyTorch keeps eight compiled forms of a function's code and runs the ninth step by step, so each type has a copy of
    the code.
    """
    code = whole.__code__.replace(co_name=f"whole_{kind}")
    return torch.compile(FunctionType(code, whole.__globals__, code.co_name), dynamic=True, backend=backend)


@cache
def _compiles() -> bool:
    """Does a trial work? Compiling needs Triton, a C compiler, and a GPU that Triton knows."""
    try:
        compiled("Q8_0")(torch.zeros(4 * 34, dtype=torch.uint8, device="cuda"), "Q8_0", torch.float16)
    except (RuntimeError, ImportError, OSError) as fault:
        reason = str(fault).strip().partition("\n")[0]
        log.warning(
            "GGUF's blocks are dequantized step by step, which is slower: PyTorch cannot compile: %.200s", reason
        )
        return False
    return True
