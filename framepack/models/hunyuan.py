"""HunyuanVideo's DiT with a packed history: the FramePack model (released weights fit by key and shape).

Dims: b batch, c channels, t h w latent grid, l tokens, d width. Picture tokens stand in the order history, section;
text tokens in the order image, words. Only the section's tokens, the last ones, are read out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import LatentSizeError
from ..nn.attention import Attention, sdpa
from ..nn.layers import Factory, Modulation, modulated_norm
from ..nn.rope import Phases, join
from ..packing.embedding import PackedEmbedding, pad_to, phases_of
from ..packing.history import ContextGroup
from ..units import BASE
from .blocks import Conditioning, DoubleBlock, SingleBlock, TokenRefiner
from .spec import HunyuanSpec

__all__ = ["HunyuanDiT", "HunyuanSpec"]


class _Patchify(nn.Module):
    def __init__(self, make: Factory, channels: int, width: int):
        super().__init__()
        self.proj = make.conv3d(channels, width, (BASE.t, BASE.h, BASE.w))

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.proj(x), "b d t h w -> b (t h w) d")


class _ImageProjection(nn.Module):
    """Vision encoder states to text-stream tokens."""

    def __init__(self, make: Factory, image_dim: int, width: int):
        super().__init__()
        self.up, self.down = make.linear(image_dim, width * 3), make.linear(width * 3, width)

    def forward(self, image: Tensor) -> Tensor:
        return self.down(F.silu(self.up(image)))


class HunyuanDiT(nn.Module):
    """Predicts the velocity of a section from its noisy latents, its packed history and the prompt."""

    def __init__(
        self,
        spec: HunyuanSpec,
        operations: Any = nn,
        attention: Attention = sdpa,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.spec, self.attention = spec, attention
        make = Factory(operations=operations, dtype=dtype, device=device)
        d, c = spec.width, spec.in_channels
        self.x_embedder = _Patchify(make, c, d)
        self.clean_x_embedder = PackedEmbedding(make, c, d, spec.kernels)
        self.context_embedder = TokenRefiner(make, spec)
        if spec.image_dim:
            self.image_projection = _ImageProjection(make, spec.image_dim, d)
        self.time_text_embed = Conditioning(make, spec.pooled_dim, d, spec.guidance)
        self.transformer_blocks = nn.ModuleList([DoubleBlock(make, spec) for _ in range(spec.double_blocks)])
        self.single_transformer_blocks = nn.ModuleList([SingleBlock(make, spec) for _ in range(spec.single_blocks)])
        self.norm_out = Modulation(make, d, 2)
        self.proj_out = make.linear(d, c * BASE.size)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        positions: Sequence[int] | None = None,
        history: Sequence[ContextGroup] = (),
        image: Tensor | None = None,
        transformer_options: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Velocity of a section, ``b c t h w`` like x.

        x noisy latents; timestep ``b`` in [0, 1000]; context ``b l text_dim`` and its mask ``b l`` (True where a
        word stands); y pooled text ``b p``; guidance ``b`` times 1000; positions ``t`` latent frame indices;
        image ``b l image_dim``. Raises LatentSizeError where positions and frames disagree.
        """
        options = transformer_options or {}
        t, h, w = x.shape[2:]
        positions = range(t) if positions is None else positions
        if len(positions) != t:
            raise LatentSizeError(f"{len(positions)} positions came for a section of {t} latent frames")
        context, attention_mask = trim(context, attention_mask)
        tokens, phases = self.pack(x, positions, history)
        vec = F.silu(self.time_text_embed(timestep, y, guidance))
        words = key_mask(attention_mask, context.shape[1])
        text = self.context_embedder(context, timestep, attention_mask, self._attend(words, options))
        if image is not None and self.spec.image_dim:
            text = torch.cat([self.image_projection(image), text], 1)
        mask = key_mask(attention_mask, tokens.shape[1] + text.shape[1])
        tokens = self.run_blocks(tokens, text, vec, phases, self._attend(mask, options), options)

        num_section = t * -(-h // BASE.h) * -(-w // BASE.w)
        scale, shift = self.norm_out(vec)
        out = self.proj_out(modulated_norm(tokens[:, -num_section:], shift, scale))
        grid = {"t": t, "h": -(-h // BASE.h), "ph": BASE.h, "pw": BASE.w}
        return rearrange(out, "b (t h w) (c ph pw) -> b c t (h ph) (w pw)", **grid)[..., :h, :w]

    def pack(self, x: Tensor, positions: Sequence[int], history: Sequence[ContextGroup]) -> tuple[Tensor, Phases]:
        """Tokens ``b l d`` and phases of history and section."""
        x = pad_to(x, (BASE.t, BASE.h, BASE.w))
        here = self.spec.rope.grid(torch.tensor(positions, device=x.device), x.shape[3] // BASE.h, x.shape[4] // BASE.w)
        tokens = [*(self.clean_x_embedder.tokens(group) for group in history), self.x_embedder(x)]
        return torch.cat(tokens, 1), join([*(phases_of(self.spec.rope, group) for group in history), here])

    def run_blocks(
        self, x: Tensor, text: Tensor, vec: Tensor, phases: Phases, attend: Any, options: Mapping[str, Any]
    ) -> Tensor:
        """All blocks; picture tokens ``b l d`` in and out. The host's block replacements and a step cache count."""

        def double(i: int, x: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
            run = partial(_double, self.transformer_blocks[i], phases=phases, attend=attend)
            out = _replaced(options, "double_block", i, run)({"img": x, "txt": text, "vec": vec, "pe": phases})
            return out["img"], out["txt"]

        after_first, text = double(0, x, text)

        def rest(x: Tensor) -> Tensor:
            said = text
            for i in range(1, len(self.transformer_blocks)):
                x, said = double(i, x, said)
            num = x.shape[1]
            x = torch.cat([x, said], 1)
            for i, block in enumerate(self.single_transformer_blocks):
                run = partial(_single, block, phases=phases, attend=attend)
                x = _replaced(options, "single_block", i, run)({"img": x, "vec": vec, "pe": phases})["img"]
            return x[:, :num]

        cache = options.get("framepack_step_cache")
        if cache is None:
            return rest(after_first)
        return cache.run(tuple(options.get("cond_or_uncond", ())), _is_final(options), x, after_first, rest)

    def _attend(self, mask: Tensor | None, options: Mapping[str, Any]) -> Any:
        return partial(self.attention, mask=mask, transformer_options=options)

    @torch.no_grad()
    def init_weights(self) -> None:
        """For training from scratch: Xavier, modulation and output zero, packing layers from the base."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, Modulation) or name == "proj_out":
                linear = module.linear if isinstance(module, Modulation) else module
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        patch = self.x_embedder.proj.weight
        nn.init.xavier_uniform_(patch.view(patch.shape[0], -1))
        self.clean_x_embedder.init_from(self.x_embedder.proj)


def trim(context: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Cut padding that no item of the batch needs; without any left there is no mask."""
    if mask is None:
        return context, None
    mask = mask.bool()
    longest = max(int(mask.sum(1).max()), 1)
    context, mask = context[:, :longest], mask[:, :longest]
    return context, None if bool(mask.all()) else mask


def key_mask(mask: Tensor | None, num_tokens: int) -> Tensor | None:
    """Word mask ``b l`` to a key mask ``b 1 1 num_tokens`` of the whole sequence, words last."""
    if mask is None:
        return None
    return F.pad(mask, (num_tokens - mask.shape[1], 0), value=True)[:, None, None]


def _is_final(options: Mapping[str, Any]) -> bool:
    """Is this the last step? By the run's noise levels and the present one, which the host passes along."""
    levels, now = options.get("sample_sigmas"), options.get("sigmas")
    return levels is not None and now is not None and len(levels) > 1 and bool(now[0] <= levels[-2])


def _double(block: DoubleBlock, args: dict[str, Any], phases: Phases, attend: Any) -> dict[str, Any]:
    x, text = block(args["img"], args["txt"], args["vec"], phases, attend)
    return {"img": x, "txt": text}


def _single(block: SingleBlock, args: dict[str, Any], phases: Phases, attend: Any) -> dict[str, Any]:
    return {"img": block(args["img"], args["vec"], phases, attend)}


def _replaced(options: Mapping[str, Any], kind: str, index: int, run: Callable[[dict], dict]) -> Callable[[dict], dict]:
    """The block's run, or what the host's patches put in its place."""
    replacement = options.get("patches_replace", {}).get("dit", {}).get((kind, index))
    if replacement is None:
        return run
    return lambda args: replacement(args, {"original_block": run, "transformer_options": options})
