"""Attention back ends by name. Each takes q, k, v ``b n l e`` and gives ``b l n*e``.

The host passes its own in; outside it `sdpa` is the default. Optional packages are looked for when asked for, and
a missing one is said at once, with the way to get it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import FramePackError, MissingPackageError
from . import onednn
from .fused import alone

log = logging.getLogger(__name__)

Attention = Callable[..., Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    """PyTorch's scaled dot-product attention, or oneDNN's products where they are faster.

    `mask` is True where a key counts, ``b 1 1 l`` or wider.
    """
    if mask is None and alone() and onednn.attends(q, k):
        return onednn.attention(q, k, v).flatten(2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


@cache
def _say_once(name: str) -> None:
    log.warning("%s attention takes no mask; batches of prompts of different length go through PyTorch's.", name)


def _masked(name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """Attention with a mask for a kernel that takes none."""
    _say_once(name)
    return sdpa(q, k, v, mask, **options)


def _sage() -> Attention:
    kernel = _optional("sageattention", "sageattn", "pip install sageattention")

    def sage(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        if mask is not None:
            return _masked("sage", q, k, v, mask, **options)
        return kernel(q, k, v, tensor_layout="HND", is_causal=False).transpose(1, 2).flatten(2)

    return sage


def _flash() -> Attention:
    kernel = _optional("flash_attn", "flash_attn_func", "pip install flash-attn --no-build-isolation")

    def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        if mask is not None:
            return _masked("flash", q, k, v, mask, **options)
        return kernel(*(x.transpose(1, 2) for x in (q, k, v))).flatten(2)

    return flash


_MAKERS: dict[str, Callable[[], Attention]] = {"sdpa": lambda: sdpa, "sage": _sage, "flash": _flash}
NAMES = tuple(_MAKERS)


def attention_named(name: str) -> Attention:
    """The back end of a name. Raises FramePackError for no such name, MissingPackageError where it is not there."""
    if name not in _MAKERS:
        raise FramePackError(f"attention {name!r} came; expected one of {', '.join(NAMES)}")
    return _MAKERS[name]()


def _optional(package: str, function: str, remedy: str) -> Callable[..., Tensor]:
    try:
        return getattr(import_module(package), function)
    except ImportError as fault:
        raise MissingPackageError(
            f"attention through {package} was asked for, which is not installed: {remedy}"
        ) from fault
