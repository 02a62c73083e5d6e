"""Wan's decoder as a stream: the blocks of a whole decode, each causal convolution given the frames before.

Dims: b batch, c channels, t latent frames, h w picture, z latent channels (16).
All that is computed of one frame but the causal convolutions is its own, so the same numbers come out as at once.
"""

from __future__ import annotations

import torch
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
        reach, past = conv.kernel_size[0] - 1, self._past.get(conv)
        recent = x[:, :, -reach:]
        if recent.shape[2] < reach:
            recent = torch.cat([self._before(x, reach) if past is None else past, recent], 2)[:, :, -reach:]
        self._past[conv] = recent.clone()  # a view would hold all of the piece
        return conv(x, past)

    @staticmethod
    def _before(x: Tensor, reach: int) -> Tensor:
        """What lies before a video's first frame."""
        return torch.zeros_like(x[:, :, :1]).expand(-1, -1, reach, -1, -1)

    def _upsampled(self, module: Upsample, x: Tensor) -> Tensor:
        """The video's first frame stays one; every later one becomes two."""
        if hasattr(module, "time_conv"):
            first = 0 if self._begun else 1
            parts = [x[:, :, :first]] if first else []
            if x.shape[2] > first:
                parts.append(double_time(self._convolved(module.time_conv, x[:, :, first:])))
            x = torch.cat(parts, 2)
        return per_frame(module.resample, x)
