"""What each training preset takes at the released size: memory is stated, operations are counted, nothing is run.

python -m benchmarks.training_presets
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from framepack.models.hunyuan import BACKBONE, HunyuanDiT, HunyuanSpec
from framepack.training.adapters import adapt
from framepack.training.cache import Clip, Index
from framepack.training.clips import Clips
from framepack.training.config import Config
from framepack.training.fitting import Footprint, footprint_of, largest_batch
from framepack.training.footprint import run_without_values
from framepack.training.presets import merged, text_of
from framepack.training.settings import parse, read
from framepack.training.trainees import Recompute, Trainee
from framepack.training.trainer import Trainer

from .training import words_of

RELEASED = HunyuanSpec(image_dim=None)  # 13 billion parameters
CLIP = 37  # latent frames: four sections and the start
# Operations a second of bf16 products that a card reaches: 40 % of what its maker states, an assumption.
RTX_4090, A100, H100 = 0.4 * 165e12, 0.4 * 312e12, 0.4 * 989e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A preset on hardware: `shards` GPUs of so many bytes; the latent grid of a clip, and cards with their rates."""

    hardware: str
    preset: str
    grid: tuple[int, int]
    cards: Mapping[str, float]
    shards: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The preset's, with its changes."""
        own = {"model": {"path": "none"}, "data": {"cache": "none"}, "run": {"out": "none"}}
        return read(Config, merged(merged(parse(text_of(self.preset), self.preset), own), self.changes))


SMALL_GRID, GRID = (30, 52), (60, 104)  # 240 x 416, and 480 x 832
OF_80 = {"H100": H100, "A100": A100}
ESTIMATES = (
    Estimate(hardware="1x24 GB", preset="lora-24gb", grid=SMALL_GRID, cards={"RTX 4090": RTX_4090}),
    Estimate(hardware="1x80 GB", preset="lora-80gb", grid=GRID, cards=OF_80),
    Estimate(hardware="1x80 GB", preset="packing-80gb", grid=GRID, cards=OF_80),
    Estimate(hardware="1x80 GB", preset="full-80gb", grid=GRID, cards=OF_80),
    Estimate(hardware="8x80 GB", preset="paper", grid=GRID, cards=OF_80, shards=8),
    Estimate(
        hardware="8x80 GB",
        preset="paper",
        grid=GRID,
        cards=OF_80,
        shards=8,
        changes={"run": {"at_once": 8}},
    ),
)


def released(folder: Path, estimate: Estimate) -> tuple[Footprint, int]:
    """The footprint of the released size in a process of several, and the operations of one clip."""
    clip = Clip(file="0.safetensors", name="0", shape=(16, CLIP, *estimate.grid), captions=("none",))
    Index(encoder="none", clips=(clip,)).write(folder)
    config = estimate.config
    dit = HunyuanDiT(RELEASED, dtype=torch.bfloat16, device="meta")
    if config.lora:
        adapt(dit, config.lora, BACKBONE.in_fp8, 0)
    trainer = Trainer(config, Trainee(dit), Clips(folder), words_of(RELEASED, "meta"), recompute=Recompute(dit, True))
    flops, one = FlopCounterMode(display=False), replace(config, run=replace(config.run, batch=1))
    stage = config.stage[-1]
    with trainer.as_in(stage, config):
        work = largest_batch(trainer, one, stage, 1)
        run_without_values(trainer.model, *work, trainer.recompute, counter=flops, fused=False)
    return footprint_of(trainer, config, estimate.shards), flops.get_total_flops()


def preset_table() -> Iterator[str]:
    """What each preset holds at most in a process, and how long a step takes at an assumed rate; nothing was run."""
    yield "| hardware | preset | size | clips a step, at once | peak per GPU | operations a clip | a step, estimated |"
    yield "|---|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        for estimate in ESTIMATES:
            found, flops = released(Path(folder), estimate)
            run, size = estimate.config.run, " x ".join(str(8 * side) for side in estimate.grid)
            each = flops * run.batch / estimate.shards
            times = ", ".join(f"{each / rate:.0f} s ({name})" for name, rate in estimate.cards.items())
            yield (
                f"| {estimate.hardware} | `{estimate.preset}` | {size} | {run.batch}, {run.at_once} "
                f"| {found.peak / 1e9:.0f} GB | {flops / 1e15:.2g} P | {times} |"
            )


if __name__ == "__main__":
    for line in preset_table():
        sys.stdout.write(line + "\n")
