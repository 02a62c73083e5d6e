"""A stand-in for a device that lacks float64, complex numbers and float8, such as Apple's MPS.

`Elsewhere` is a tensor that claims to be on that device and holds a tensor of the CPU. Inside `device()` the usual
calls make such tensors and move them there and back. Mixing devices raises, as it does on a real one. Exponentials
differ from the CPU's in the last bit, as they do on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # the one other device that every build of PyTorch has
LACKING = (
    *(torch.float64, torch.complex32, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
)


ROUNDED = (torch.ops.aten.exp, torch.ops.aten.pow, torch.ops.aten.log)


class Elsewhere(Tensor):
    """A tensor on the stand-in device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        if held.dtype in LACKING:
            raise TypeError(f"the device has no {held.dtype}")
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    def tolist(self) -> list:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: Any, args: Sequence = (), kwargs: Mapping | None = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        stray = [x.shape for x in tensors if not isinstance(x, Elsewhere) and x.ndim]
        assert not stray, f"{func}: tensors of the CPU beside those of the device, {stray}"
        known = {id(x.held): x for x in tensors if isinstance(x, Elsewhere)}  # what a call in place returns
        out = func(*_held(args), **_held(dict(kwargs or {})))
        if func.overloadpacket in ROUNDED:  # no two devices round these alike
            out = torch.nextafter(out, torch.full_like(out, torch.inf))

        def there(x: Any) -> Any:
            return known[id(x)] if id(x) in known else Elsewhere(x) if isinstance(x, Tensor) else x

        return tree_map(there, out)


def _held(values: Any) -> Any:
    return tree_map(lambda x: x.held if isinstance(x, Elsewhere) else x, values)


def _is_device(value: Any) -> bool:
    return isinstance(value, torch.device | str) and str(value) == DEVICE.type


class _Moves(TorchFunctionMode):
    """Calls that name the device, such as torch.arange(3, device=DEVICE), or move a tensor there or back."""

    def __torch_function__(self, func: Callable, types: Any, args: Sequence = (), kwargs: Mapping | None = None) -> Any:
        kwargs = dict(kwargs or {})
        lands = any(map(_is_device, [*args, *kwargs.values()]))
        moved = func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor)
        if not (lands or moved or func in (Tensor.to, Tensor.cpu)):
            return func(*args, **kwargs)
        names = any(isinstance(value, torch.device | str) for value in [*args[1:], *kwargs.values()])
        if func is Tensor.to and not names:  # to a dtype, or like another tensor
            lands = isinstance(args[1] if moved else args[0], Elsewhere)
        args, kwargs = tree_map(lambda x: torch.device("cpu") if _is_device(x) else x, (_held(args), _held(kwargs)))
        out = func(*args, **kwargs)
        return Elsewhere(out) if lands else out


def moved(module: nn.Module) -> nn.Module:
    """A module with its parameters on the device."""
    for layer in module.modules():
        for name, weight in list(layer._parameters.items()):
            if weight is not None:
                layer._parameters[name] = nn.Parameter(Elsewhere(weight.data), requires_grad=False)
    return module


@contextmanager
def device() -> Iterator[torch.device]:
    """The stand-in device."""
    with _Moves():
        yield DEVICE
