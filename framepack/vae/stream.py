"""Wan's decoder as a stream: the blocks of a whole decode, each causal convolution given the frames before.

Dims: b batch, c channels, t latent frames, h w picture, z latent channels (16).
All that is computed of one frame but the causal convolutions is its own, so the same numbers come out as at once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .wan import CausalConv3d, ResidualBlock, Upsample, WanVAE, double_time, per_frame


class WanStream:
    """Push latents in pieces of any size; their frames come out at once. It holds two frames for each convolution."""

    def __init__(self, vae: WanVAE):
        self.vae = vae
        self._past: dict[nn.Module, Tensor] = {}
        self._begun = False

    def push(self, latents: Tensor) -> Tensor:
        """Unscaled latents ``b z t h w`` that follow those before -> pixels ``b 3 4t h w``, 4t - 3 the first time."""
        x = self.vae.conv2(latents)
        decoder = self.vae.decoder
        for part in (decoder.conv1, decoder.middle, decoder.upsamples, decoder.head):
            x = self._through(part, x)
        self._begun = True
        return x

    def _through(self, module: nn.Module, x: Tensor) -> Tensor:
        """One block; those that look at one frame only are called as they are."""
        if isinstance(module, nn.Sequential):
            for part in module:
                x = self._through(part, x)
            return x
        if isinstance(module, ResidualBlock):
            return self._through(module.residual, x) + module.shortcut(x)
        if isinstance(module, Upsample):
            return self._upsampled(module, x)
        return self._convolved(module, x) if isinstance(module, CausalConv3d) else module(x)

    def _convolved(self, conv: CausalConv3d, x: Tensor) -> Tensor:
        reach = conv.kernel_size[0] - 1
        past = self._past.get(conv)
        seen = F.pad(x, (0, 0, 0, 0, reach, 0)) if past is None else torch.cat([past, x], 2)
        self._past[conv] = seen[:, :, -reach:].clone()  # a view would hold all of the piece
        return conv(x, past)

    def _upsampled(self, module: Upsample, x: Tensor) -> Tensor:
        """The video's first frame stays one; every later one becomes two."""
        if hasattr(module, "time_conv"):
            alone, rest = (x[:, :, :0], x) if self._begun else (x[:, :, :1], x[:, :, 1:])
            doubled = [double_time(self._convolved(module.time_conv, rest))] if rest.shape[2] else []
            x = torch.cat([alone, *doubled], 2)
        return per_frame(module.resample, x)
