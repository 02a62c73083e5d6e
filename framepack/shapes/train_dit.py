"""Train the built-in DiT and its text encoder on latents of the shapes' world.

    python -m framepack.shapes.train_dit LATENTS OUT_FOLDER [--from framepack/shapes/assets]

The stages are in `recipe.py`; the loop is `framepack/training`'s. A run that stopped goes on from its last state.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor, nn

from ..models.hunyuan import HunyuanDiT, HunyuanSpec
from ..nn.attention import sdpa
from ..nn.rope import Phases
from ..packing.history import ContextGroup
from ..packing.kernels import LAYER_NAMES
from ..planning.plan import Section
from ..training.clips import Clips
from ..training.console import Printed
from ..training.resident import Resident, placed
from ..training.trainer import Trainer
from . import builtin
from .recipe import STAGES, Recipe, recipe
from .teach_text import teach
from .text import TextEncoder, Tokenizer
from .world import CIRCUMRADIUS, COLOURS, DIRECTIONS

WORDS = (
    *COLOURS,
    *CIRCUMRADIUS,
    *DIRECTIONS,
    *("slowly", "quickly", "a", "moves", "moving", "to", "the", "on", "and", "turns", "turning"),
    *("plain", "graded", "background"),
    *("shape", "leaves", "leaving", "returns", "returning", "mark"),
)
NUM_TOKENS = 16  # the longest caption has 14 words
MOST_PHASES = 4096
MEASURED = 400  # clips that they are measured on


def in_float32(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Attention in float32 where the model is in bfloat16: on CPUs its backward pass is faster so."""
    if q.is_cuda:
        return sdpa(q, k, v, mask, **options)
    return sdpa(q.float(), k.float(), v.float(), mask, **options).to(v.dtype)


class PatchConvolution(nn.Conv3d):
    """A convolution whose stride is its kernel, as the product that it is; some versions of cuDNN are slow at it."""

    def forward(self, x: Tensor) -> Tensor:
        """x ``b c t h w`` of whole kernels, in any dtype -> ``b d t' h' w'`` in the weight's."""
        kt, kh, kw = self.kernel_size
        cells = rearrange(x, "b c (t kt) (h kh) (w kw) -> b t h w (c kt kh kw)", kt=kt, kh=kh, kw=kw)
        return F.linear(cells.to(self.weight.dtype), self.weight.flatten(1), self.bias).movedim(-1, 1)


class Operations:
    """torch.nn's layers, with patch convolutions as products."""

    Linear, LayerNorm, RMSNorm, Conv3d = nn.Linear, nn.LayerNorm, nn.RMSNorm, PatchConvolution


class _Trained(HunyuanDiT):
    """The DiT with the phases of every section that it has met kept on its device."""

    def __init__(self, spec: HunyuanSpec, **options: Any):
        super().__init__(spec, operations=Operations, **options)
        self.kept: dict[Any, Phases] = {}

    def phases(self, x: Tensor, positions: Sequence[int], history: Sequence[ContextGroup]) -> Phases:
        groups = tuple((g.kernel, g.positions, g.tail, g.latents.shape[2:]) for g in history)
        key = (tuple(positions), x.shape[3:], groups, x.device)
        if key not in self.kept:
            if len(self.kept) >= MOST_PHASES:
                self.kept.clear()
            self.kept[key] = super().phases(x, positions, history).to(x.device)
        return self.kept[key]


class Pair(nn.Module):
    """DiT and text encoder, trained together. The text encoder stays in float32."""

    def __init__(self, spec: HunyuanSpec, tokenizer: Tokenizer, seed: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.text = TextEncoder(len(tokenizer.words), tokenizer.num_tokens, spec.text_dim)
        self.dit = _Trained(spec, attention=in_float32, exact=True)
        self.dit.init_weights()
        self.dit.to(dtype)
        self.rows: dict[str, int] = {}
        self.known = torch.empty(0, tokenizer.num_tokens, dtype=torch.long)

    def words(self, captions: list[str]) -> dict[str, Tensor]:
        """Tokens ``b l`` of captions, on the model's device."""
        device = self.text.words.weight.device
        new = [caption for caption in dict.fromkeys(captions) if caption not in self.rows]
        if new:
            more = torch.tensor([self.tokenizer(caption) for caption in new])
            self.rows |= {caption: len(self.rows) + i for i, caption in enumerate(new)}
            self.known = torch.cat([self.known.to(device), more.to(device)])
        rows = placed(torch.tensor([self.rows[caption] for caption in captions]), device)
        return {"tokens": self.known.to(device).index_select(0, rows)}

    def forward(
        self, x: Tensor, sigma: Tensor, words: Mapping[str, Tensor], section: Section, history: list[ContextGroup]
    ) -> Tensor:
        """x ``b c t h w`` noisy, sigma ``b`` -> velocity like x."""
        history = [replace(group, latents=group.latents.float()) for group in history]  # pooled in float32
        context, pooled = (encoded.to(x.dtype) for encoded in self.text(words["tokens"]))
        return self.dit(x, sigma * 1000, context, pooled, positions=section.positions, history=history)


def statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over whole clips of a cache of unscaled latents."""
    clips = Clips(folder)
    some = clips.sample(MEASURED)
    least = min(clip.num_lat_frames for clip in some)
    latents = torch.stack([clips.read(clip, least) for clip in some])
    return latents.mean((0, 2, 3, 4)).tolist(), latents.std((0, 2, 3, 4)).tolist()


def trainer_of(
    how: Recipe, spec: HunyuanSpec, device: str = "cpu", like: Trainer | None = None, clips: Clips | None = None
) -> Trainer:
    """The trainer of a recipe for a model with fresh weights, or for the model and the clips of another trainer.

    `clips` are on the device already.
    """
    if like:
        assert isinstance(like.model, Pair)
        return Trainer(how.config, like.model, like.clips, like.model.words)
    model = Pair(spec, Tokenizer(WORDS, NUM_TOKENS), how.config.run.seed, how.config.model.dtype).to(device)
    folder = how.config.data.cache
    clips = clips or Resident(folder, *statistics(folder), device)
    return Trainer(how.config, model, clips, model.words)


def taught(trainer: Trainer, how: Recipe, stage: int) -> None:
    """Teach the text encoder before a stage whose recipe says so."""
    model = trainer.model
    assert isinstance(model, Pair)
    if steps := how.teach.get(stage):
        teach(model.text, model.tokenizer, steps, how.config.run.seed)
        if trainer.average:
            for name, value in model.text.state_dict(prefix="text.").items():
                trainer.average.mean[name].copy_(value)


def read_exported(model: Pair, folder: Path) -> None:
    """Take the weights of a model's files; words that it did not know keep their fresh ones."""
    for part, path in ((model.dit, builtin.DIT), (model.text, builtin.TEXT)):
        weights = {k: v.float() for k, v in load_file(folder / path.relative_to(builtin.ASSETS)).items()}
        if part is model.text:
            fresh = model.text.words.weight.detach().cpu()
            weights["words.weight"] = torch.cat([weights["words.weight"], fresh[len(weights["words.weight"]) :]])
        part.load_state_dict(weights)


def small_spec() -> HunyuanSpec:
    """The built-in DiT's sizes."""
    return HunyuanSpec(
        heads=4,
        head_dim=32,
        double_blocks=2,
        single_blocks=5,
        refiner_blocks=1,
        text_dim=128,
        pooled_dim=128,
        guidance=False,
        image_dim=None,
        rope_axes=(8, 12, 12),
        kernels=tuple(LAYER_NAMES),
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latents", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--from", dest="exported", type=Path, help="a model's files, for the last stage alone")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    how = recipe(args.latents, args.out, STAGES[-1:] if args.exported else STAGES, seed=args.seed)
    trainer = trainer_of(how, small_spec(), args.device)
    if args.exported:
        assert isinstance(trainer.model, Pair)
        read_exported(trainer.model, args.exported)
    with Printed(sys.stdout) as printed:
        trainer.run(printed.stopped, [printed], lambda stage: taught(trainer, how, stage))


if __name__ == "__main__":
    main()
