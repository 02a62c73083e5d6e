"""Train the built-in DiT and its text encoder on latents of the shapes' world.

    python -m framepack.shapes.train_dit LATENTS OUT_FOLDER [--from framepack/shapes/assets]

The stages are in `recipe.py`; the loop is `framepack/training`'s. A run that stopped goes on from its last state.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..models.hunyuan import HunyuanDiT, HunyuanSpec
from ..nn.attention import sdpa
from ..packing.history import ContextGroup
from ..packing.kernels import LAYER_NAMES
from ..planning.plan import Section
from ..training.cache import Index, clip_path, read_tensors
from ..training.clips import Clips
from ..training.console import Printed
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
)
NUM_TOKENS = 16  # the longest caption has 14 words
HELD = 128  # files of latents in memory: all of them


def in_float32(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """Attention in float32 where the model is in bfloat16: on CPUs its backward pass is faster so."""
    return sdpa(q.float(), k.float(), v.float(), mask, **options).to(v.dtype)


class Pair(nn.Module):
    """DiT and text encoder, trained together."""

    def __init__(self, spec: HunyuanSpec, tokenizer: Tokenizer, seed: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        torch.manual_seed(seed)
        self.tokenizer = tokenizer
        self.text = TextEncoder(len(tokenizer.words), tokenizer.num_tokens, spec.text_dim)
        self.dit = HunyuanDiT(spec, attention=in_float32)
        self.dit.init_weights()
        self.to(dtype)

    def words(self, captions: list[str]) -> dict[str, Tensor]:
        """Tokens ``b l`` of captions."""
        return {"tokens": torch.tensor([self.tokenizer(caption) for caption in captions])}

    def forward(
        self, x: Tensor, sigma: Tensor, words: Mapping[str, Tensor], section: Section, history: list[ContextGroup]
    ) -> Tensor:
        """x ``b c t h w`` noisy, sigma ``b`` -> velocity like x."""
        context, pooled = self.text(words["tokens"])
        return self.dit(x, sigma * 1000, context, pooled, positions=section.positions, history=history)


def statistics(folder: Path) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over the whole clips of a cache of unscaled latents."""
    files = dict.fromkeys(clip.file for clip in Index.read(folder).clips if clip.num_lat_frames > 1)
    latents = torch.stack([clip for file in files for clip in read_tensors(clip_path(folder, file)).values()])
    return latents.mean((0, 2, 3, 4)).tolist(), latents.std((0, 2, 3, 4)).tolist()


def trainer_of(how: Recipe, spec: HunyuanSpec, device: str = "cpu") -> Trainer:
    """The trainer of a recipe for a model with fresh weights."""
    model = Pair(spec, Tokenizer(WORDS, NUM_TOKENS), how.config.run.seed, how.config.model.dtype).to(device)
    folder = how.config.data.cache
    clips = Clips(folder, *statistics(folder), held=HELD)
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
    """Take the weights of a model's files."""
    for part, path in ((model.dit, builtin.DIT), (model.text, builtin.TEXT)):
        weights = load_file(folder / path.relative_to(builtin.ASSETS))
        part.load_state_dict({key: value.float() for key, value in weights.items()})


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
