"""Attention back ends by name. Each takes q, k, v ``b n l e`` and gives ``b l n*e``.

The host passes its own; elsewhere `sdpa` is the default. An optional package is imported when it is requested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import FramePackError, MissingPackageError

log = logging.getLogger(__name__)

Attention = Callable[..., Tensor]
TRAINED_WITH = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def for_training() -> AbstractContextManager[None]:
    """PyTorch's kernels without cuDNN's, which it prefers on H100 and H200 since 2.11.

    There cuDNN's backward pass can give NaN in bfloat16, and every new number of tokens takes long to prepare.
    """
    return sdpa_kernel(TRAINED_WITH)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    """PyTorch's scaled dot-product attention. `mask` is True where a key counts, ``b 1 1 l`` or wider."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


@cache
def _warn_once(name: str) -> None:
    log.warning("%s attention takes no mask; prompts of different length in one batch use PyTorch's attention.", name)


def _masked(name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, **options: Any) -> Tensor:
    """Attention with a mask for a kernel that takes none."""
    _warn_once(name)
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
SHARED = "ulysses"  # over several processes, each with a kernel of NAMES: ulysses, or ulysses+flash


def attention_named(name: str) -> Attention:
    """The back end of a name. Raises FramePackError for an unknown name, MissingPackageError for a missing package."""
    first, _, kernel = name.partition("+")
    if first == SHARED:
        from .ulysses import ulysses  # torch.distributed is needed for this one alone

        return ulysses(attention_named(kernel or "sdpa"))
    if name not in _MAKERS:
        raise FramePackError(f"Attention must be one of {', '.join((*NAMES, SHARED))}; got {name!r}.")
    return _MAKERS[name]()


def _optional(package: str, function: str, remedy: str) -> Callable[..., Tensor]:
    try:
        return getattr(import_module(package), function)
    except ImportError as fault:
        raise MissingPackageError(f"{package} is not installed. Install it, or choose sdpa: {remedy}") from fault
