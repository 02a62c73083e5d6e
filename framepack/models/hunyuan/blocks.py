"""The blocks of HunyuanVideo's DiT, under the key names of diffusers.

Dims: b batch, l tokens, d width, n heads, e head dim. `x` are picture tokens, `text` image and word tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.fused import Stream, by_rows, linear, linear_gelu, linear_of_two, side_by_side
from ...nn.layers import Embedder, Factory, FeedForward, Modulation, gated_sum, modulated_norm, sinusoid
from ...nn.rope import Phases, part
from ..packed import EVERY
from .spec import HunyuanSpec

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v b n l e -> b l d
Parts = Sequence[Sequence[Tensor]]  # of each of a block's modulations its shifts, scales and gates, each b d


class Conditioning(nn.Module):
    """Timestep, guidance and pooled text to one vector."""

    def __init__(self, make: Factory, pooled_dim: int, width: int, guidance: bool):
        super().__init__()
        self.timestep_embedder = Embedder(make, 256, width)
        self.text_embedder = Embedder(make, pooled_dim, width)
        if guidance:
            self.guidance_embedder = Embedder(make, 256, width)

    def forward(self, timestep: Tensor, pooled: Tensor, guidance: Tensor | None = None) -> Tensor:
        """timestep ``b`` in [0, 1000], pooled ``b p``, guidance ``b`` times 1000 -> ``b d``."""
        out = self.timestep_embedder(sinusoid(timestep).to(pooled)) + self.text_embedder(pooled)
        if hasattr(self, "guidance_embedder"):
            assert guidance is not None, "this model takes guidance"
            out = out + self.guidance_embedder(sinusoid(guidance).to(pooled))
        return out


class JointAttention(nn.Module):
    """q, k, v of one or two streams. `added` gives the text stream projections of its own."""

    def __init__(self, make: Factory, spec: HunyuanSpec, added: bool = False, normed: bool = True, out: bool = True):
        super().__init__()
        self.heads, d = spec.heads, spec.width
        self.to_q, self.to_k, self.to_v = (make.linear(d, d) for _ in range(3))
        if normed:
            self.norm_q, self.norm_k = make.rms_norm(spec.head_dim), make.rms_norm(spec.head_dim)
        if out:
            self.to_out = nn.ModuleList([make.linear(d, d)])
        if added:
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (make.linear(d, d) for _ in range(3))
            self.norm_added_q, self.norm_added_k = make.rms_norm(spec.head_dim), make.rms_norm(spec.head_dim)
            self.to_add_out = make.linear(d, d)

    def picture(self, x: Tensor, phases: Phases | None, read: slice = EVERY) -> tuple[Stream, Stream, Stream]:
        """What makes q, k, v of x ``b l d``, q of the tokens that are read; q and k normed, turned by the phases."""
        norms = (self.norm_q, self.norm_k) if hasattr(self, "norm_q") else (None, None)
        turned = phases and part(phases, read)
        return (
            Stream(x[:, read], self.to_q, norms[0], turned),
            Stream(x, self.to_k, norms[1], phases),
            Stream(x, self.to_v),
        )

    def words(self, text: Tensor) -> tuple[Stream, Stream, Stream]:
        """What makes q, k, v of the text stream ``b l d``."""
        return (
            Stream(text, self.add_q_proj, self.norm_added_q),
            Stream(text, self.add_k_proj, self.norm_added_k),
            Stream(text, self.add_v_proj),
        )

    def attended(self, attend: Attend, *streams: tuple[Stream, Stream, Stream]) -> Tensor:
        """Attention over the q, k, v of one or two streams side by side -> ``b l d``."""
        q, k, v = (side_by_side(self.heads, *parts).transpose(1, 2) for parts in zip(*streams, strict=True))
        del streams  # and with them the tokens that they were made of
        return attend(q, k, v)


class DoubleBlock(nn.Module):
    """Picture and text each with weights of their own, attending jointly."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        d = spec.width
        self.norm1, self.norm1_context = Modulation(make, d, 6), Modulation(make, d, 6)
        self.attn = JointAttention(make, spec, added=True)
        self.ff = FeedForward(make, d, d * spec.mlp_ratio)
        self.ff_context = FeedForward(make, d, d * spec.mlp_ratio)

    @property
    def modulations(self) -> tuple[Modulation, ...]:
        """The layers whose parts the forward takes."""
        return self.norm1, self.norm1_context

    def forward(self, x: Tensor, text: Tensor, parts: Parts, phases: Phases, attend: Attend) -> tuple[Tensor, Tensor]:
        """x ``b l d``, text ``b l' d``, parts of the modulations, each ``b d`` -> x and text."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts[0]
        t_shift, t_scale, t_gate, t_shift_mlp, t_scale_mlp, t_gate_mlp = parts[1]
        out = self.attn.attended(
            attend,
            self.attn.picture(modulated_norm(x, shift, scale), phases),
            self.attn.words(modulated_norm(text, t_shift, t_scale)),
        )
        seen, said = out.split([x.shape[1], text.shape[1]], 1)

        def picture(x: Tensor, seen: Tensor) -> Tensor:
            x = gated_sum(x, gate, linear(self.attn.to_out[0], seen))
            return gated_sum(x, gate_mlp, self.ff(modulated_norm(x, shift_mlp, scale_mlp)))

        def words(text: Tensor, said: Tensor) -> Tensor:
            text = gated_sum(text, t_gate, linear(self.attn.to_add_out, said))
            return gated_sum(text, t_gate_mlp, self.ff_context(modulated_norm(text, t_shift_mlp, t_scale_mlp)))

        return (
            by_rows(picture, x, seen, layers=(self.attn.to_out, self.ff)),
            by_rows(words, text, said, layers=(self.attn.to_add_out, self.ff_context)),
        )


class SingleBlock(nn.Module):
    """One stream, attention and MLP side by side."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        d = spec.width
        self.norm = Modulation(make, d, 3)
        self.attn = JointAttention(make, spec, out=False)
        self.proj_mlp = make.linear(d, d * spec.mlp_ratio)
        self.proj_out = make.linear(d * (1 + spec.mlp_ratio), d)

    @property
    def modulations(self) -> tuple[Modulation, ...]:
        """The layers whose parts the forward takes."""
        return (self.norm,)

    def forward(self, x: Tensor, parts: Parts, phases: Phases, attend: Attend, read: slice = EVERY) -> Tensor:
        """x ``b l d``, picture then text; only the picture tokens, as many as phases, are turned.

        Gives the tokens that are read, which all others are seen by.
        """
        ((shift, scale, gate),) = parts
        out = self.attn.attended(attend, self.attn.picture(modulated_norm(x, shift, scale), phases, read))

        def both(x: Tensor, seen: Tensor) -> Tensor:
            inner = linear_gelu(self.proj_mlp, modulated_norm(x, shift, scale))
            return gated_sum(x, gate, linear_of_two(self.proj_out, seen, inner))

        return by_rows(both, x[:, read], out, layers=(self.proj_mlp, self.proj_out))


class RefinerBlock(nn.Module):
    """A block of the token refiner: only gates are modulated."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        d = spec.width
        self.norm1, self.norm2 = make.layer_norm(d), make.layer_norm(d)
        self.attn = JointAttention(make, spec, normed=False)
        self.ff = FeedForward(make, d, d * spec.mlp_ratio, activation=F.silu)
        self.norm_out = Modulation(make, d, 2)

    def forward(self, text: Tensor, vec: Tensor, attend: Attend) -> Tensor:
        """text ``b l d`` -> the same shape."""
        gate, gate_mlp = self.norm_out(vec)
        out = self.attn.attended(attend, self.attn.picture(self.norm1(text), None))
        text = gated_sum(text, gate, linear(self.attn.to_out[0], out))
        return gated_sum(text, gate_mlp, self.ff(self.norm2(text)))


class _RefinerStack(nn.Module):
    """Holds the refiner's blocks under their checkpoint name."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        self.refiner_blocks = nn.ModuleList([RefinerBlock(make, spec) for _ in range(spec.refiner_blocks)])


class TokenRefiner(nn.Module):
    """Text encoder states to text tokens, refined with the timestep in view."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        self.time_text_embed = Conditioning(make, spec.text_dim, spec.width, guidance=False)
        self.proj_in = make.linear(spec.text_dim, spec.width)
        self.token_refiner = _RefinerStack(make, spec)

    def forward(self, text: Tensor, timestep: Tensor, mask: Tensor | None, attend: Attend) -> Tensor:
        """text ``b l text_dim``, mask ``b l`` True where a word stands -> ``b l d``."""
        if mask is None:
            pooled = text.mean(1)
        else:
            counted = mask.to(text)[..., None]
            pooled = (text * counted).sum(1) / counted.sum(1).clamp_min(1)
        vec = F.silu(self.time_text_embed(timestep, pooled))
        text = self.proj_in(text)
        for block in self.token_refiner.refiner_blocks:
            text = block(text, vec, attend)
        return text
