"""The causal video VAE of Wan 2.1, at any width, with the original key names.

Dims: b batch, c channels, t frames, h w picture, z latent channels (16).
Pixels ``b 3 t h w`` in [-1, 1], t = 4n + 1; latents ``b 16 n+1 h/8 w/8``.

Time is causal: frame 0 is coded alone, and every later group of four frames becomes one latent. A whole
clip is coded at once here; on the host its own decoder goes latent by latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import LatentSizeError


@dataclass(frozen=True, slots=True, kw_only=True)
class WanVAESpec:
    """Sizes of the VAE. `width` is the channel count at full resolution: 96 in the released weights, 8 here."""

    width: int = 8
    latent_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    temporal: tuple[bool, ...] = (False, True, True)


class CausalConv3d(nn.Conv3d):
    """Convolution that sees the present and the past: all padding in time is on the left."""

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c t h w`` -> ``b c' t h w``; zeros stand for the frames before x."""
        kt, kh, kw = self.kernel_size
        if x.shape[2] == 1:
            # Before a clip's first frame lie only zeros, so one slice of the kernel does all the work.
            y = F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=(kh // 2, kw // 2))
            return y.unsqueeze(2)
        if kt > 1:
            x = F.pad(x, (0, 0, 0, 0, kt - 1, 0))
        return F.conv3d(x, self.weight, self.bias, padding=(0, kh // 2, kw // 2))


class RMSNorm(nn.Module):
    """Norm over channels. `picture` tensors have no time axis."""

    def __init__(self, channels: int, picture: bool = False):
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *((1, 1) if picture else (1, 1, 1))))

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c ...`` -> the same shape."""
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
        return x * (self.scale / length) * self.gamma


class ResidualBlock(nn.Module):
    """Two causal 3x3x3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.residual = nn.Sequential(
            RMSNorm(channels_in),
            nn.SiLU(),
            CausalConv3d(channels_in, channels_out, 3),
            RMSNorm(channels_out),
            nn.SiLU(),
            nn.Dropout(0.0),
            CausalConv3d(channels_out, channels_out, 3),
        )
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else CausalConv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c t h w`` -> ``b c' t h w``."""
        return self.residual(x) + self.shortcut(x)


class AttentionBlock(nn.Module):
    """Single-head attention within each frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = RMSNorm(channels, picture=True)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c t h w`` -> the same shape."""
        b, _, _, h, w = x.shape
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        q, k, v = rearrange(self.to_qkv(self.norm(frames)), "f (s c) h w -> s f 1 (h w) c", s=3).contiguous()
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "f 1 (h w) c -> f c h w", h=h, w=w)
        return x + rearrange(self.proj(out), "(b t) c h w -> b c t h w", b=b)


def per_frame(module: nn.Module, x: Tensor) -> Tensor:
    """A module of pictures ``b c h w`` over each frame of x ``b c t h w``."""
    frames = module(rearrange(x, "b c t h w -> (b t) c h w"))
    return rearrange(frames, "(b t) c h w -> b c t h w", b=x.shape[0])


class Downsample(nn.Module):
    """Halves height and width, and with `temporal` time too, the first frame left alone."""

    def __init__(self, channels: int, temporal: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        if temporal:
            self.time_conv = CausalConv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c 2n+1 h w`` -> ``b c n+1 h/2 w/2`` (temporal) or ``b c 2n+1 h/2 w/2``."""
        x = per_frame(self.resample, x)
        if not hasattr(self, "time_conv") or x.shape[2] == 1:
            return x
        rest = F.conv3d(x, self.time_conv.weight, self.time_conv.bias, stride=(2, 1, 1))
        return torch.cat([x[:, :, :1], rest], 2)


def double_time(x: Tensor) -> Tensor:
    """x ``b 2c t h w`` -> ``b c 2t h w``: a frame's channels become two frames."""
    return rearrange(x, "b (s c) t h w -> b c (t s) h w", s=2)


class Upsample(nn.Module):
    """Doubles height and width and halves channels; with `temporal` doubles time too, but for frame 0."""

    def __init__(self, channels: int, temporal: bool):
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact"),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
        )
        if temporal:
            self.time_conv = CausalConv3d(channels, channels * 2, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c n+1 h w`` -> ``b c/2 2n+1 2h 2w`` (temporal) or ``b c/2 n+1 2h 2w``."""
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], double_time(self.time_conv(x[:, :, 1:]))], 2)
        return per_frame(self.resample, x)


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(channels, channels), AttentionBlock(channels), ResidualBlock(channels, channels))


def _head(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(RMSNorm(channels_in), nn.SiLU(), CausalConv3d(channels_in, channels_out, 3))


class Encoder(nn.Module):
    """Pixels to the mean and log variance of the latents."""

    def __init__(self, spec: WanVAESpec):
        super().__init__()
        widths = [spec.width * m for m in (1, *spec.multipliers)]
        self.conv1 = CausalConv3d(3, widths[0], 3)
        stages: list[nn.Module] = []
        for level, (channels, out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            stages += [ResidualBlock(channels if i == 0 else out, out) for i in range(spec.blocks)]
            if level < len(spec.temporal):
                stages.append(Downsample(out, spec.temporal[level]))
        self.downsamples = nn.Sequential(*stages)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], spec.latent_channels * 2)

    def forward(self, x: Tensor) -> Tensor:
        """x ``b 3 t h w`` -> ``b 2z n+1 h/8 w/8``."""
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, spec: WanVAESpec):
        super().__init__()
        widths = [spec.width * m for m in (spec.multipliers[-1], *reversed(spec.multipliers))]
        self.conv1 = CausalConv3d(spec.latent_channels, widths[0], 3)
        self.middle = _middle(widths[0])
        stages: list[nn.Module] = []
        for level, (channels, out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            channels = channels if level == 0 else channels // 2  # an upsample halved them
            stages += [ResidualBlock(channels if i == 0 else out, out) for i in range(spec.blocks + 1)]
            if level < len(spec.temporal):
                stages.append(Upsample(out, spec.temporal[::-1][level]))
        self.upsamples = nn.Sequential(*stages)
        self.head = _head(widths[-1], 3)

    def forward(self, z: Tensor) -> Tensor:
        """z ``b z n+1 h w`` -> ``b 3 4n+1 8h 8w``."""
        return self.head(self.upsamples(self.middle(self.conv1(z))))


class WanVAE(nn.Module):
    """Encoder and decoder with the two 1x1x1 convolutions between them."""

    def __init__(self, spec: WanVAESpec | None = None):
        super().__init__()
        self.spec = spec or WanVAESpec()
        z = self.spec.latent_channels
        self.encoder = Encoder(self.spec)
        self.conv1 = CausalConv3d(2 * z, 2 * z, 1)
        self.conv2 = CausalConv3d(z, z, 1)
        self.decoder = Decoder(self.spec)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels ``b 3 4n+1 h w`` -> mean and log variance, each ``b z n+1 h/8 w/8``.

        Raises LatentSizeError where t is not 4n + 1 or h, w are no multiples of 8.
        """
        t, h, w = pixels.shape[2:]
        if t % 4 != 1 or h % 8 or w % 8:
            raise LatentSizeError(
                f"A clip must have 4n + 1 frames, and a height and width that are multiples of 8; got {t} frames of "
                f"{h}x{w} pixels. Crop or pad the clip."
            )
        mean, log_var = self.conv1(self.encoder(pixels)).chunk(2, 1)
        return mean, log_var

    def encode(self, pixels: Tensor) -> Tensor:
        """pixels ``b 3 4n+1 h w`` -> the posterior's mode, ``b z n+1 h/8 w/8``, unscaled."""
        return self.posterior(pixels)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """latents ``b z n+1 h w``, unscaled -> pixels ``b 3 4n+1 8h 8w``."""
        return self.decoder(self.conv2(latents))
