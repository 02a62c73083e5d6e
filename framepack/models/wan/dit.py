"""Wan 2.1's DiT with a packed history, under the key names of diffusers.

Dims: b batch, c channels, t h w latent grid, l tokens, d width, n heads, e head dim. Picture tokens `img` stand in the
order history, section; only the section's are read out. Text `txt` and image are seen by cross-attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.attention import Attention, sdpa
from ...nn.layers import NORM_EPS, Embedder, Factory, FeedForward, gated_sum, gelu_tanh, modulated_norm, sinusoid
from ...nn.rope import Phases, rotate
from ...packing.embedding import PackedEmbedding
from ...packing.history import ContextGroup
from ...units import BASE
from ..memo import constants_of
from ..packed import PackedDiT
from ..running import EVERY, Blocks, Past, Run
from .spec import WanSpec

IMAGE_NORM_EPS = 1e-5


class Table(nn.Module):
    """Mixed into modules with a table of shifts, scales and gates of their own, ``1 parts d``."""

    def modulation(self, vec: Tensor) -> tuple[Tensor, ...]:
        """The conditioning ``b parts d`` (or ``b 1 d``) on top of the table: parts, each ``b d``; summed in float32."""
        table = self.scale_shift_table.to(vec.device, torch.float32)
        return tuple(part.squeeze(1) for part in (table + vec.float()).to(vec.dtype).split(1, 1))


class WanAttention(nn.Module):
    """q, k, v with q and k normed over all heads; `image` adds keys and values of the image's own."""

    def __init__(self, make: Factory, spec: WanSpec, image: bool = False, norm_eps: float = NORM_EPS):
        super().__init__()
        self.heads, d = spec.heads, spec.width
        self.to_q, self.to_k, self.to_v = (make.linear(d, d) for _ in range(3))
        self.to_out = nn.ModuleList([make.linear(d, d)])
        self.norm_q, self.norm_k = make.rms_norm(d, norm_eps), make.rms_norm(d, norm_eps)
        if image:
            self.add_k_proj, self.add_v_proj = make.linear(d, d), make.linear(d, d)
            self.norm_added_k = make.rms_norm(d)

    def turned(self, x: Tensor, phases: Phases) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v ``b l n e`` of x ``b l d``; q and k turned by the phases."""
        return rotate(self.queries(x), phases), rotate(self.keys(x), phases), self.split(self.to_v(x))

    def queries(self, x: Tensor) -> Tensor:
        """q ``b l n e`` of x ``b l d``."""
        return self.split(self.norm_q(self.to_q(x)))

    def keys(self, x: Tensor) -> Tensor:
        """k ``b l n e`` of x ``b l d``."""
        return self.split(self.norm_k(self.to_k(x)))

    def seen(self, txt: Tensor, image: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Keys and values ``b l n e`` of the text, and of the image if there is one; each ``b l d``."""
        pairs = [(self.keys(txt), self.split(self.to_v(txt)))]
        if image is not None:
            pairs.append((self.split(self.norm_added_k(self.add_k_proj(image))), self.split(self.add_v_proj(image))))
        return pairs

    def split(self, x: Tensor) -> Tensor:
        """``b l d`` -> ``b l n e``."""
        return x.unflatten(-1, (self.heads, -1))


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

    def forward(self, img: Tensor, txt: Tensor, image: Tensor | None, vec: Tensor, run: Run) -> Tensor:
        """img ``b l d``, txt and image ``b l' d``, vec ``b 6 d`` -> the tokens of img that are read."""
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = self.modulation(vec)
        pairs = self.attn2.seen(txt, image)

        def heads(x: Tensor, phases: Phases) -> tuple[Tensor, Tensor, Tensor]:
            return self.attn1.turned(modulated_norm(x, shift, scale), phases)

        def out(x: Tensor, seen: Tensor) -> Tensor:
            x = gated_sum(x, gate, self.attn1.to_out[0](seen))
            q = self.attn2.queries(self.norm2(x))
            x = x + self.attn2.to_out[0](sum(run.attend(q, k, v) for k, v in pairs))
            return gated_sum(x, gate_ffn, self.ffn(modulated_norm(x, shift_ffn, scale_ffn)))

        seen = run.self_attention((heads, img, run.phases))
        return run.rows((out, img[:, run.read], seen))


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
        c, d, geometry = spec.in_channels, spec.width, spec.geometry
        self.patch_embedding = make.conv3d(c, d, geometry.latents(BASE))
        self.clean_x_embedder = PackedEmbedding(make, c, d, spec.kernels, geometry=geometry)
        self.condition_embedder = Conditioning(make, spec)
        self.blocks = nn.ModuleList([WanBlock(make, spec) for _ in range(spec.blocks)])
        self.proj_out = make.linear(d, spec.out_channels * geometry.patch**2)
        self.scale_shift_table = make.parameter(1, 2, d)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        positions: Sequence[int] | None = None,
        history: Sequence[ContextGroup] = (),
        image: Tensor | None = None,
        causal_history: bool = False,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Velocity of a section, ``b out_channels t h w``.

        x noisy latents, with the channels of a known image or without; timestep ``b`` in [0, 1000]; context
        ``b l text_dim``; positions ``t`` latent frame indices; image ``b l image_dim``. With `causal_history` the
        history sees only itself and the text, at timestep 0. Raises LatentSizeError where positions and frames
        disagree.
        """
        options = transformer_options or {}
        constants, embedder = constants_of(options), self.condition_embedder
        history = [replace(group, latents=self.with_known(group.latents, known=True)) for group in history]
        x = self.with_known(x, known=False)
        time, vec = embedder.time(timestep, context.dtype)
        txt, seen = constants.keep("words", None, (context, image), lambda: embedder.tokens(context, image))

        causal = (txt, seen) if causal_history else None
        img, phases, shares, section, pasts = self.pictured(x, positions, history, options, constants, causal=causal)
        run = self.run(options, phases=phases, shares=shares)
        blocks = Blocks(run, options, self.takes_runs, ("double_block", self.spec.blocks - 1), section)
        for i, block in enumerate(self.blocks):
            img = blocks("double_block", i, block, pasts[i], img=img, txt=txt, image=seen, vec=vec)

        shift, scale = self.modulation(time[:, None])
        out = self.proj_out(modulated_norm(blocks.read(img), shift, scale))
        return self.unpatchified(out, x, "(ph pw c)")

    def pasts(self, img: Tensor, txt: Tensor, image: Tensor | None, run: Run, options: Mapping[str, Any]) -> list[Past]:
        """Keys and values, in each block, of a history's tokens ``b l d`` that see only themselves, at timestep 0."""
        _, vec = self.condition_embedder.time(torch.zeros(len(img), device=img.device), txt.dtype)
        blocks = Blocks(run, options, self.takes_runs, ("", 0), EVERY)
        found = []
        for block in self.blocks:
            img, past = blocks.kept(block, img=img, txt=txt, image=image, vec=vec)
            found.append(past)
        return found

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
