"""Wan 2.1's DiT with a packed history, under the key names of diffusers.

Dims: b batch, c channels, t h w latent grid, l tokens, d width, n heads, e head dim. Picture tokens stand in the order
history, section; only the section's, the last ones, are read out. Text and image are seen by cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...nn.attention import Attention, sdpa
from ...nn.fused import Stream, by_rows, gelu_tanh, linear, side_by_side
from ...nn.layers import Embedder, Factory, FeedForward, gated_sum, modulated_norm, sinusoid
from ...nn.rope import Phases, part
from ...packing.embedding import PackedEmbedding
from ...packing.history import ContextGroup
from ...units import BASE
from ..memo import constants_of
from ..packed import EVERY, PackedDiT, read_of, replaced, section_grid
from .spec import WanSpec

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v b n l e -> b l d
IMAGE_NORM_EPS = 1e-5


class Table(nn.Module):
    """Mixed into modules with a table of shifts, scales and gates of their own, ``1 parts d``."""

    def modulation(self, vec: Tensor) -> tuple[Tensor, ...]:
        """The conditioning ``b parts d`` (or ``b 1 d``) on top of the table: parts, each ``b d``; summed in float32."""
        table = self.scale_shift_table.to(vec.device, torch.float32)
        return tuple(part.squeeze(1) for part in (table + vec.float()).to(vec.dtype).split(1, 1))


class WanAttention(nn.Module):
    """q, k, v with q and k normed over all heads; `image` adds keys and values of the image's own."""

    def __init__(self, make: Factory, spec: WanSpec, image: bool = False):
        super().__init__()
        self.heads, d = spec.heads, spec.width
        self.to_q, self.to_k, self.to_v = (make.linear(d, d) for _ in range(3))
        self.to_out = nn.ModuleList([make.linear(d, d)])
        self.norm_q, self.norm_k = make.rms_norm(d), make.rms_norm(d)
        if image:
            self.add_k_proj, self.add_v_proj = make.linear(d, d), make.linear(d, d)
            self.norm_added_k = make.rms_norm(d)

    def within(self, x: Tensor, phases: Phases, attend: Attend, read: slice) -> Tensor:
        """Self-attention over x ``b l d``, turned by the phases; gives the tokens that are read."""
        out = self._attended(
            attend,
            Stream(x[:, read], self.to_q, self.norm_q, part(phases, read), across=True),
            Stream(x, self.to_k, self.norm_k, phases, across=True),
            Stream(x, self.to_v),
        )
        return linear(self.to_out[0], out)

    def over(self, x: Tensor, text: Tensor, image: Tensor | None, attend: Attend) -> Tensor:
        """Cross-attention of x ``b l d`` to text and image tokens, each ``b l' d``, added up."""
        q = Stream(x, self.to_q, self.norm_q, across=True)
        k, v = Stream(text, self.to_k, self.norm_k, across=True), Stream(text, self.to_v)
        out = self._attended(attend, q, k, v)
        if image is not None:
            k, v = Stream(image, self.add_k_proj, self.norm_added_k, across=True), Stream(image, self.add_v_proj)
            out = out + self._attended(attend, q, k, v)
        return linear(self.to_out[0], out)

    def _attended(self, attend: Attend, *streams: Stream) -> Tensor:
        return attend(*(side_by_side(self.heads, stream).transpose(1, 2) for stream in streams))


class WanBlock(Table):
    """Self-attention, cross-attention and feed-forward; the first and the last are modulated."""

    def __init__(self, make: Factory, spec: WanSpec):
        super().__init__()
        d = spec.width
        self.attn1 = WanAttention(make, spec)
        self.attn2 = WanAttention(make, spec, image=spec.image_dim is not None)
        self.norm2 = make.layer_norm(d)
        self.ffn = FeedForward(make, d, spec.ffn_dim)
        self.scale_shift_table = make.parameter(1, 6, d)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        image: Tensor | None,
        vec: Tensor,
        phases: Phases,
        attend: Attend,
        read: slice = EVERY,
    ) -> Tensor:
        """x ``b l d``, text and image ``b l' d``, vec ``b 6 d`` -> the tokens of x that are read, seeing all."""
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = self.modulation(vec)
        x = gated_sum(x[:, read], gate, self.attn1.within(modulated_norm(x, shift, scale), phases, attend, read))
        x = x + self.attn2.over(self.norm2(x), text, image, attend)

        def inner(x: Tensor) -> Tensor:
            return gated_sum(x, gate_ffn, self.ffn(modulated_norm(x, shift_ffn, scale_ffn)))

        return by_rows(inner, x, layers=(self.ffn,))


class _ImageEmbedder(nn.Module):
    """Vision encoder states ``b l image_dim`` to image tokens ``b l d``."""

    def __init__(self, make: Factory, image_dim: int, width: int):
        super().__init__()
        self.norm1 = make.layer_norm(image_dim, IMAGE_NORM_EPS)
        self.ff = FeedForward(make, image_dim, image_dim, width, activation=F.gelu)
        self.norm2 = make.layer_norm(width, IMAGE_NORM_EPS)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm2(self.ff(self.norm1(image)))


class Conditioning(nn.Module):
    """Timestep, text and image to what the blocks take."""

    def __init__(self, make: Factory, spec: WanSpec):
        super().__init__()
        self.time_embedder = Embedder(make, 256, spec.width)
        self.time_proj = make.linear(spec.width, 6 * spec.width)
        self.text_embedder = Embedder(make, spec.text_dim, spec.width, activation=gelu_tanh)
        if spec.image_dim is not None:
            self.image_embedder = _ImageEmbedder(make, spec.image_dim, spec.width)

    def time(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """timestep ``b`` -> its embedding ``b d`` and the blocks' ``b 6 d``."""
        time = self.time_embedder(sinusoid(timestep).to(dtype))
        return time, self.time_proj(F.silu(time)).unflatten(-1, (6, -1))

    def tokens(self, text: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Text and image tokens ``b l d``."""
        seen = self.image_embedder(image) if image is not None and hasattr(self, "image_embedder") else None
        return self.text_embedder(text), seen


class WanDiT(PackedDiT, Table):
    """Predicts the velocity of a section from its noisy latents, its packed history, the prompt and an image."""

    BLOCKS = ("blocks",)

    def __init__(
        self,
        spec: WanSpec,
        operations: Any = nn,
        attention: Attention = sdpa,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        make = Factory(operations=operations, dtype=dtype, device=device)
        super().__init__(spec, attention)
        self.patch_embedding = make.conv3d(spec.in_channels, spec.width, (BASE.t, BASE.h, BASE.w))
        self.clean_x_embedder = PackedEmbedding(make, spec.in_channels, spec.width, spec.kernels)
        self.condition_embedder = Conditioning(make, spec)
        self.blocks = nn.ModuleList([WanBlock(make, spec) for _ in range(spec.blocks)])
        self.proj_out = make.linear(spec.width, spec.out_channels * BASE.size)
        self.scale_shift_table = make.parameter(1, 2, spec.width)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        positions: Sequence[int] | None = None,
        history: Sequence[ContextGroup] = (),
        image: Tensor | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Velocity of a section, ``b out_channels t h w``.

        x noisy latents, with the channels of a known image or without; timestep ``b`` in [0, 1000]; context
        ``b l text_dim``; positions ``t`` latent frame indices; image ``b l image_dim``. Raises LatentSizeError where
        positions and frames disagree.
        """
        options = transformer_options or {}
        history = [replace(group, latents=self.with_known(group.latents, known=True)) for group in history]
        constants, embedder = constants_of(options), self.condition_embedder
        tokens, phases = self.pack(self.with_known(x, known=False), positions, history, constants)
        time, vec = embedder.time(timestep, context.dtype)
        text, seen = constants.keep("words", None, (context, image), lambda: embedder.tokens(context, image))
        t, h, w = section_grid(x)
        tokens = self.run_blocks(tokens, text, seen, vec, phases, options, t * h * w)
        shift, scale = self.modulation(time[:, None])
        out = self.proj_out(modulated_norm(tokens, shift, scale))
        out = rearrange(out, "b (t h w) (ph pw c) -> b c t (h ph) (w pw)", t=t, h=h, ph=BASE.h, pw=BASE.w)
        return out[..., : x.shape[3], : x.shape[4]]

    @property
    def patchify(self) -> nn.Module:
        """The base patchify projection."""
        return self.patch_embedding

    def with_known(self, latents: Tensor, known: bool) -> Tensor:
        """Latents ``b c t h w`` with the mask and image channels of image to video, where they lack them.

        A frame of history is known, so its mask is 1 and its image is the frame itself; frames that do not exist yet,
        zeros, and a section's own are not.
        """
        short = self.spec.in_channels - latents.shape[1]
        if not short:
            return latents
        if not known:
            return F.pad(latents, (0, 0, 0, 0, 0, 0, 0, short))
        b, c, t, h, w = latents.shape
        there = (latents != 0).any(4).any(3).any(1).to(latents).view(b, 1, t, 1, 1)
        return torch.cat([latents, there.expand(b, short - c, t, h, w), latents], 1)

    def run_blocks(
        self,
        x: Tensor,
        text: Tensor,
        image: Tensor | None,
        vec: Tensor,
        phases: Phases,
        options: Mapping[str, Any],
        num_read: int,
    ) -> Tensor:
        """All blocks; picture tokens ``b l d`` in, the last ones, which are read, out.

        The host's block replacements count.
        """
        attend = self.attend(None, options)
        section, last = slice(x.shape[1] - num_read, x.shape[1]), len(self.blocks) - 1

        def block(i: int, x: Tensor, read: slice = EVERY) -> Tensor:
            run = partial(_run, self.blocks[i], image=image, phases=phases, attend=attend, read=read)
            return replaced(options, "double_block", i, run)({"img": x, "txt": text, "vec": vec, "pe": phases})["img"]

        for i in range(len(self.blocks)):
            x = block(i, x, read_of(options, "double_block", i, section) if i == last else EVERY)
        return x if x.shape[1] == num_read else x[:, section]


def _run(
    block: WanBlock, args: dict[str, Any], image: Tensor | None, phases: Phases, attend: Attend, read: slice
) -> dict[str, Any]:
    return {"img": block(args["img"], args["txt"], image, args["vec"], phases, attend, read)}
