"""A small data set, model file and configuration, made up for the tests of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from framepack.training.cache import Clip, Index, clip_path, write_tensors
from framepack.training.command import Means, Prepared, prepare
from framepack.training.config import Config, Data, Model, Run, Share, Stage
from framepack.training.encoding import encode_text
from tests.backbones import SMALL, Small

INVERTED = "f1k1_x_g2_f1k1f2k2_td"
CAPTIONS = ("a red star", "a blue circle")
GRID = (4, 6)


class MadeUpEncoder:
    """Text of random values with the names that a backbone takes; pictures averaged by 8 for latents."""

    def __init__(self, small: Small):
        self.small, self.name = small, f"made up for {small.name}"
        self.scale, self.shift = [2.0] * 16, [0.5] * 16

    def latents(self, pixels: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(pixels, 8)[:, ::4]  # 3 t h w
        return torch.cat([small] * 6)[:16]

    def text(self, caption: str) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(len(caption))
        extra = {n: v[0] for n, v in self.small.extra(1).items() if n != "guidance"}
        return {"context": torch.randn(3 + len(caption) % 3, self.small.spec.text_dim, generator=source), **extra}


def made_up_cache(folder: Path, small: Small = SMALL[0], lengths: tuple[int, ...] = (5, 7, 9, 1)) -> Path:
    """A cache of random clips of so many latent frames."""
    source, clips = torch.Generator().manual_seed(0), []
    for i, length in enumerate(lengths):
        shape = (16, length, *GRID)
        write_tensors(clip_path(folder, f"{i}.safetensors"), {"0": torch.randn(shape, generator=source)})
        clips.append(Clip(file=f"{i}.safetensors", name="0", shape=shape, captions=CAPTIONS))
    encoder = MadeUpEncoder(small)
    encode_text(folder, encoder, ["", *CAPTIONS])
    Index(encoder=encoder.name, clips=tuple(clips)).write(folder)
    return folder


def saved_model(path: Path, small: Small = SMALL[0]) -> Path:
    """A checkpoint of a small random model."""
    weights = {key: value.clone() for key, value in small.model().state_dict().items()}
    metadata = {"framepack.spec": json.dumps({"head_dim": small.spec.head_dim})} if small.name != "hunyuan" else {}
    save_file(weights, path, metadata)
    return path


def made_up_config(folder: Path, small: Small = SMALL[0], **tables: Any) -> Config:
    """Three steps on the whole model; `tables` replace tables, or settings of the stage where they are its."""
    cache, model = folder / "cache", folder / "model.safetensors"
    if not cache.exists():
        made_up_cache(cache, small)
        saved_model(model, small)
    mixture = (Share(schedule=INVERTED, weight=2), Share())
    stage = Stage(steps=3, rate=1e-3, mixture=mixture, optimizer="adamw")
    base = Config(
        model=Model(path=model, compute="fp32", device="cpu"),
        data=Data(cache=cache),
        run=Run(out=folder / "run", batch=2),
        stage=(stage,),
    )
    return replace(base, **tables)


def prepared(config: Config) -> Prepared:
    """The configuration's run, from its cache."""
    run = prepare(config, Means(encoder=lambda path: MadeUpEncoder(SMALL[0])))
    run.place()
    return run
