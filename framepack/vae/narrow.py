"""Fast convolutions over time for one narrow clip on a CPU.

Dims: b batch, c channels, t frames, h w picture.

PyTorch gives a float32 conv3d of one item with few values to a slow routine of its own, and any batch of two to a fast
one. So the rows are cut into two halves, which go through as a batch: the built-in VAE decodes 3 to 7 times as fast.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

FEW = 20480  # values c t h of one item, up to which PyTorch takes its slow routine


class NarrowConvolutions(TorchFunctionMode):
    """Within it, every torch.conv3d of the kind that PyTorch is slow at goes through in two halves.

    It changes results by rounding only, and works on the modules of any library, such as the host's VAE.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """PyTorch calls it in place of each of its functions."""
        return (_conv3d if func is torch.conv3d else func)(*args, **(kwargs or {}))


def _conv3d(
    input: Tensor,  # noqa: A002 - torch's name, which a caller may use
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch.conv3d of input ``b c t h w``."""
    plain = stride in (1, (1, 1, 1)) and dilation in (1, (1, 1, 1)) and groups == 1 and not isinstance(padding, str)
    if not plain or not _is_slow(input) or input.shape[3] < 2 * weight.shape[3]:
        return torch.conv3d(input, weight, bias, stride, padding, dilation, groups)
    return _halved(input, weight, bias, (padding,) * 3 if isinstance(padding, int) else padding)


def _is_slow(x: Tensor) -> bool:
    if x.ndim != 5 or len(x) != 1 or x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    return x.shape[1:4].numel() <= FEW


def _halved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int]) -> Tensor:
    """The convolution of x ``1 c t h w`` by halves of its rows, channels innermost; both make an odd middle row."""
    time, rows, columns = padding
    x = F.pad(x, (0, 0, rows, rows))
    halo = weight.shape[3] - 1
    made = x.shape[3] - halo
    half = -(-made // 2)
    halves = torch.cat([x[:, :, :, : half + halo], x[:, :, :, made - half :]])  # 2 c t h/2 w
    halves, weight = (part.contiguous(memory_format=torch.channels_last_3d) for part in (halves, weight))
    top, bottom = torch.conv3d(halves, weight, bias, padding=(time, 0, columns)).split(1)
    return torch.cat([top, bottom[:, :, :, 2 * half - made :]], 3)
