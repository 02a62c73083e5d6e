"""Which kernels have layers of their own, and how any other kernel goes through them (paper section 3.1).

A layer initialised by interpolation from a smaller one (its kernel repeated and divided) gives what the smaller
one gives on the average-pooled input. So a kernel without a layer pools first and goes through the largest layer
that divides it: that covers the paper's 2x2x2 downsample beyond k8, released weights without k8, and full forms.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..errors import CheckpointError
from ..units import BASE, Kernel

LAYER_NAMES = {
    BASE: "proj",
    Kernel(2, 4, 4): "proj_2x",
    Kernel(4, 8, 8): "proj_4x",
    Kernel(8, 16, 16): "proj_8x",
}


def route(kernel: Kernel, owned: Iterable[Kernel]) -> tuple[Kernel, tuple[int, int, int]]:
    """The owned kernel that a kernel goes through, and the average pooling before it."""
    fits = [o for o in owned if not (kernel.t % o.t or kernel.h % o.h or kernel.w % o.w)]
    if not fits:
        raise CheckpointError(f"kernel {kernel} came; the model has no layer that divides it, not even k1")
    own = max(fits, key=lambda o: o.size)
    return own, (kernel.t // own.t, kernel.h // own.h, kernel.w // own.w)


def interpolated(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight ``d c t h w`` of a smaller kernel, repeated to a larger one and divided so that tokens keep size."""
    times = [k // n for k, n in zip((kernel.t, kernel.h, kernel.w), weight.shape[2:], strict=True)]
    for axis, n in enumerate(times, 2):
        weight = weight.repeat_interleave(n, axis)
    return weight / (times[0] * times[1] * times[2])
