"""Helios' DiT (arXiv 2603.04379): Wan's blocks over a packed history that stays clean.

Dims: b batch, c channels, t h w latent grid, l tokens, d width, n heads, e head dim. Tokens `img` stand in the order
history, section; only the section's are read out. The history's tokens are modulated at timestep 0, and only the
section's tokens see the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...nn.attention import Attention, sdpa
from ...nn.layers import Factory, FeedForward, gated_sum, modulated_norm
from ...nn.rope import Phases
from ...packing.history import ContextGroup
from ...units import BASE, Kernel
from ..memo import constants_of
from ..packed import PackedDiT
from ..running import Blocks, Run
from ..wan.dit import Conditioning, Table, WanAttention
from .names import PACKING
from .spec import HeliosSpec

TEXT_NORM_EPS = 1e-5  # of q and k in cross-attention
MOST_SCALE = 10.0  # of the history's keys


class HeliosAttention(WanAttention):
    """Self-attention; with learned scales, the history's keys count 1 to 10 times."""

    def __init__(self, make: Factory, spec: HeliosSpec):
        super().__init__(make, spec)
        if spec.key_scales:
            self.history_key_scale = make.parameter(spec.key_scales)

    def scaled(self, keys: Tensor) -> Tensor:
        """The history's keys ``b l n e``, scaled."""
        if not hasattr(self, "history_key_scale"):
            return keys
        scale = 1 + (MOST_SCALE - 1) * self.history_key_scale.to(keys.device, torch.float32).sigmoid()
        return keys * scale[:, None].to(keys)  # n 1, or 1 1


class HeliosBlock(Table):
    """Self-attention over history and section, cross-attention of the section with the text, feed-forward."""

    def __init__(self, make: Factory, spec: HeliosSpec):
        super().__init__()
        d = spec.width
        self.text_to_section = spec.text_to_section
        self.attn1 = HeliosAttention(make, spec)
        self.attn2 = WanAttention(make, spec, norm_eps=TEXT_NORM_EPS)
        self.norm2 = make.layer_norm(d)
        self.ffn = FeedForward(make, d, spec.ffn_dim)
        self.scale_shift_table = make.parameter(1, 6, d)

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, history_vec: Tensor, num_history: int, run: Run) -> Tensor:
        """img ``b l d`` whose first `num_history` tokens are the history's, txt ``b l' d``, vec and history_vec
        ``b 6 d`` -> the tokens of img that are read."""
        past, here = slice(0, num_history), slice(num_history, None)
        clean, noisy = self.modulation(history_vec), self.modulation(vec)
        (text,) = self.attn2.seen(txt, None)
        seen = run.self_attention(
            (partial(self.heads, parts=clean, history=True), img[:, past], run.phases[:, past]),
            (partial(self.heads, parts=noisy), img[:, here], run.phases[:, here]),
        )
        section = partial(self.out, parts=noisy, text=text, run=run)
        if seen.shape[1] < img.shape[1]:
            return run.rows((section, img[:, here], seen))
        history = partial(self.out, parts=clean, text=None if self.text_to_section else text, run=run)
        return run.rows((history, img[:, past], seen[:, past]), (section, img[:, here], seen[:, here]))

    def heads(
        self, x: Tensor, phases: Phases, parts: Sequence[Tensor], history: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v ``b l n e`` of tokens x ``b l d``, with their modulation."""
        q, k, v = self.attn1.turned(modulated_norm(x, parts[0], parts[1]), phases)
        return q, self.attn1.scaled(k) if history else k, v

    def out(
        self, x: Tensor, seen: Tensor, parts: Sequence[Tensor], text: tuple[Tensor, Tensor] | None, run: Run
    ) -> Tensor:
        """Tokens x ``b l d`` after what they have seen of each other ``b l n*e``, and of the text if they see it."""
        x = gated_sum(x, parts[2], self.attn1.to_out[0](seen))
        if text is not None:
            x = x + self.attn2.to_out[0](run.attend(self.attn2.queries(self.norm2(x)), *text))
        return gated_sum(x, parts[5], self.ffn(modulated_norm(x, parts[3], parts[4])))


class OutputTable(Table):
    """The shift and scale of the last norm, under the released name."""

    def __init__(self, make: Factory, width: int):
        super().__init__()
        self.scale_shift_table = make.parameter(1, 2, width)


class HeliosDiT(PackedDiT):
    """Predicts the velocity of a section from its noisy latents, its packed history and the prompt."""

    BLOCKS = ("blocks",)

    def __init__(
        self,
        spec: HeliosSpec,
        operations: Any = nn,
        attention: Attention = sdpa,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        make = Factory(operations=operations, dtype=dtype, device=device)
        super().__init__(spec, attention)
        c, d, geometry = spec.in_channels, spec.width, spec.geometry
        self.patch_embedding = make.conv3d(c, d, geometry.latents(BASE))
        for kernel in spec.kernels:
            self.add_module(PACKING[kernel], make.conv3d(c, d, geometry.latents(kernel)))
        self.condition_embedder = Conditioning(make, spec)
        self.blocks = nn.ModuleList([HeliosBlock(make, spec) for _ in range(spec.blocks)])
        self.norm_out = OutputTable(make, d)
        self.proj_out = make.linear(d, spec.out_channels * geometry.patch**2)

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

        x noisy latents, at the history's size or, in a pyramid, smaller; timestep ``b`` in [0, 1000]; context
        ``b l text_dim``; positions ``t`` latent frame indices; image is ignored. Raises LatentSizeError if positions
        and frames disagree.
        """
        options = transformer_options or {}
        constants, embedder = constants_of(options), self.condition_embedder
        img, phases = self.pack(x, positions, history, constants)
        time, vec = embedder.time(timestep, context.dtype)
        history_vec = vec
        if self.spec.clean_history:
            history_vec = constants.keep("clean", None, (context[:0],), lambda: self.clean(timestep, context))
        txt, _ = constants.keep("words", None, (context,), lambda: embedder.tokens(context, None))

        section, last = self.section(img, x), ("double_block", len(self.blocks) - 1)
        run = self.run(options, phases=phases, shares=self.shares(x, history))
        blocks = Blocks(run, options, self.takes_runs, last, section)
        inputs = {"txt": txt, "vec": vec, "history_vec": history_vec, "num_history": section.start}
        for i, block in enumerate(self.blocks):
            img = blocks("double_block", i, block, img=img, **inputs)

        shift, scale = self.norm_out.modulation(time[:, None])
        out = self.proj_out(modulated_norm(blocks.read(img), shift, scale))
        return self.unpatchified(out, x, "(ph pw c)")

    def clean(self, timestep: Tensor, context: Tensor) -> Tensor:
        """The history's conditioning ``1 6 d``, at timestep 0 whatever the section's."""
        return self.condition_embedder.time(torch.zeros_like(timestep[:1]), context.dtype)[1]

    @property
    def packing_layers(self) -> dict[Kernel, nn.Module]:
        """The projections of history, by kernel."""
        return {kernel: getattr(self, PACKING[kernel]) for kernel in self.spec.kernels}

    @property
    def patchify(self) -> nn.Module:
        """The base patchify projection."""
        return self.patch_embedding
