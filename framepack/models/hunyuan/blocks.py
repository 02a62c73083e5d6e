"""The blocks of HunyuanVideo's DiT, under the key names of diffusers.

Dims: b batch, l tokens, d width, n heads, e head dim. `img` are picture tokens, `txt` image and word tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.layers import Embedder, Factory, FeedForward, Modulation, gated_sum, gelu_tanh, modulated_norm, sinusoid
from ...nn.rope import Phases, rotate
from ..running import Run
from .spec import HunyuanSpec

Parts = Sequence[Sequence[Tensor]]  # of each of a block's modulations: its shifts, scales and gates, each b d
Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each b l n e


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

    def forward(self, x: Tensor) -> Heads:
        """q, k, v of x ``b l d``, neither normed nor turned."""
        return self.split(self.to_q(x)), self.split(self.to_k(x)), self.split(self.to_v(x))

    def turned(self, x: Tensor, phases: Phases) -> Heads:
        """q, k, v of x ``b l d``; q and k normed and turned by the phases."""
        q, k, v = self(x)
        return rotate(self.norm_q(q), phases), rotate(self.norm_k(k), phases), v

    def added(self, txt: Tensor) -> Heads:
        """q, k, v of the text stream ``b l d``; q and k normed."""
        q, k, v = (self.split(project(txt)) for project in (self.add_q_proj, self.add_k_proj, self.add_v_proj))
        return self.norm_added_q(q), self.norm_added_k(k), v

    def split(self, x: Tensor) -> Tensor:
        """``b l d`` -> ``b l n e``."""
        return x.unflatten(-1, (self.heads, -1))


class DoubleBlock(nn.Module):
    """Picture and text each with weights of their own, attending jointly."""

    two_streams = True

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

    def forward(self, img: Tensor, txt: Tensor, vec: Parts, run: Run) -> tuple[Tensor, Tensor]:
        """img ``b l d``, txt ``b l' d``, parts of the modulations -> img and txt."""
        (shift, scale, *img_rest), (txt_shift, txt_scale, *txt_rest) = vec
        num = img.shape[1]

        def img_heads(x: Tensor, phases: Phases) -> Heads:
            return self.attn.turned(modulated_norm(x, shift, scale), phases)

        def txt_heads(x: Tensor) -> Heads:
            return self.attn.added(modulated_norm(x, txt_shift, txt_scale))

        def img_out(x: Tensor, seen: Tensor) -> Tensor:
            return _out(x, self.attn.to_out[0](seen), img_rest, self.ff)

        def txt_out(x: Tensor, seen: Tensor) -> Tensor:
            return _out(x, self.attn.to_add_out(seen), txt_rest, self.ff_context)

        seen = run.self_attention((img_heads, img, run.phases[:, :num]), (txt_heads, txt))
        return run.rows((img_out, img, seen[:, :num])), run.rows((txt_out, txt, seen[:, num:]))


def _out(x: Tensor, attended: Tensor, parts: Sequence[Tensor], ff: FeedForward) -> Tensor:
    """A stream's residual sums: attention's, then the feed-forward's."""
    gate, shift, scale, gate_mlp = parts
    x = gated_sum(x, gate, attended)
    return gated_sum(x, gate_mlp, ff(modulated_norm(x, shift, scale)))


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

    def forward(self, img: Tensor, vec: Parts, run: Run) -> Tensor:
        """img ``b l d``, picture then text -> the tokens that are read."""
        ((shift, scale, gate),) = vec

        def heads(x: Tensor, phases: Phases) -> Heads:
            return self.attn.turned(modulated_norm(x, shift, scale), phases)

        def out(x: Tensor, seen: Tensor) -> Tensor:
            inner = gelu_tanh(self.proj_mlp(modulated_norm(x, shift, scale)))
            return gated_sum(x, gate, self.proj_out(torch.cat([seen, inner], -1)))

        seen = run.self_attention((heads, img, run.phases))
        return run.rows((out, img[:, run.read], seen))


class RefinerBlock(nn.Module):
    """A block of the token refiner: only gates are modulated."""

    def __init__(self, make: Factory, spec: HunyuanSpec):
        super().__init__()
        d = spec.width
        self.norm1, self.norm2 = make.layer_norm(d), make.layer_norm(d)
        self.attn = JointAttention(make, spec, normed=False)
        self.ff = FeedForward(make, d, d * spec.mlp_ratio, activation=F.silu)
        self.norm_out = Modulation(make, d, 2)

    def forward(self, txt: Tensor, vec: Tensor, run: Run) -> Tensor:
        """txt ``b l d``, vec ``b d`` -> txt."""
        gate, gate_mlp = self.norm_out(vec)
        txt = gated_sum(txt, gate, self.attn.to_out[0](run.self_attention((self.attn, self.norm1(txt)))))
        return gated_sum(txt, gate_mlp, self.ff(self.norm2(txt)))


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

    def forward(self, text: Tensor, timestep: Tensor, mask: Tensor | None, run: Run) -> Tensor:
        """text ``b l text_dim``, mask ``b l`` True where a word stands -> ``b l d``."""
        if mask is None:
            pooled = text.mean(1)
        else:
            counted = mask.to(text)[..., None]
            pooled = (text * counted).sum(1) / counted.sum(1).clamp_min(1)
        vec = F.silu(self.time_text_embed(timestep, pooled))
        txt = self.proj_in(text)
        for block in self.token_refiner.refiner_blocks:
            txt = block(txt, vec, run)
        return txt
