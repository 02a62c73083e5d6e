"""Which kernels have layers of their own, and how any other kernel goes through them (paper section 3.1).

A layer initialised by interpolation from a smaller one (its kernel repeated and divided) gives what the smaller
one gives on the average-pooled input. So a kernel without a layer pools first and goes through the largest layer
that divides it: that covers the paper's 2x2x2 downsample beyond k8, released weights without k8, and full forms.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import CheckpointError
from ..units import BASE, Kernel

LAYER_NAMES = {
    BASE: "proj",
    Kernel(2, 4, 4): "proj_2x",
    Kernel(4, 8, 8): "proj_4x",
    Kernel(8, 16, 16): "proj_8x",
}


def route(kernel: Kernel, owned: Sequence[Kernel]) -> tuple[Kernel, tuple[int, int, int]]:
    """The owned kernel that a kernel goes through, and the average pooling before it."""
    fits = [o for o in owned if not (kernel.t % o.t or kernel.h % o.h or kernel.w % o.w)]
    if not fits:
        raise CheckpointError(
            f"No layer of the model divides the kernel {kernel}; it has {', '.join(map(str, owned))}."
        )
    own = max(fits, key=lambda o: o.size)
    return own, (kernel.t // own.t, kernel.h // own.h, kernel.w // own.w)


def interpolated(base: Tensor, kernel: Kernel) -> Tensor:
    """The base layer's weight ``d c 1 p p`` repeated over a kernel's patches, and divided so that tokens keep size."""
    for axis, times in enumerate(kernel.patches, 2):
        base = base.repeat_interleave(times, axis) / times
    return base
