"""The example of docs/finetune.md, reduced: 40 clips teach the built-in model a colour and a shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from framepack.planning.video import make_plan
from framepack.sampling.guidance import Guidance
from framepack.schedule.grammar import parse
from framepack.shapes import builtin
from framepack.shapes.encoders import MEANS
from framepack.shapes.generate import Builtin, generate
from framepack.shapes.lesson import FIRST_MEASURED, is_ring, scenes, write_clips
from framepack.shapes.shape_measures import nearest_colour, track
from framepack.shapes.world import COLOURS, NEW_COLOURS, NEW_SHAPES, caption
from framepack.training.adapters import merge
from framepack.training.command import train

CONFIG = """
[model]
path = "{model}"
compute = "fp32"
checkpointing = false
device = "cpu"
[data]
folder = "{folder}/clips"
cache = "{folder}/cache"
base = 64
longest = 0.2
[run]
out = "{folder}/run"
batch = 16
save_every = 1000
[lora]
rank = 16
[[stage]]
steps = {steps}
optimizer = "adamw"
rate = 2e-3
warmup = 10
decay = 0.5
shift = 1.0
[[stage.mixture]]
"""


def first_frames(model: Builtin, count: int) -> torch.Tensor:
    """The first frame of each scene, from its caption alone: ``n 3 h w``."""
    plan = make_plan(parse("td_f1k1_g1"), num_lat_frames=1, start=False)
    words = list(map(caption, scenes(FIRST_MEASURED, count)))
    made = generate(model, plan, words, start=None, steps=12, seed=0, guidance=Guidance(cfg=2.5))
    return torch.cat([model.pixels(clip)[:1] for clip in made])


def shares(frames: torch.Tensor) -> tuple[float, float]:
    """Of the frames that name the new colour, and the new shape, the shares that show it."""
    wanted = scenes(FIRST_MEASURED, len(frames))
    colours = [
        nearest_colour(track(frame[None]).colour, COLOURS | NEW_COLOURS)[0] in NEW_COLOURS
        for frame, scene in zip(frames, wanted, strict=True)
        if scene.colour in NEW_COLOURS
    ]
    shapes = [is_ring(frame) for frame, scene in zip(frames, wanted, strict=True) if scene.shape in NEW_SHAPES]
    return sum(colours) / len(colours), sum(shapes) / len(shapes)


@pytest.mark.slow
def test_a_lora_of_40_clips_teaches_a_new_colour_and_a_new_shape(tmp_path: Path):
    write_clips(tmp_path / "clips")
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(model=builtin.DIT, folder=tmp_path, steps=300), encoding="utf-8")
    model = Builtin.load()
    before = shares(first_frames(model, 24))
    train(path, MEANS)
    merge(model.dit, tmp_path / "run" / "lora.safetensors")
    after = shares(first_frames(model, 24))
    assert max(before) <= 0.2, before
    assert min(after) >= 0.5, after
