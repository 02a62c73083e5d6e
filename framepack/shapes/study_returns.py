"""The similarity test: does a shape that leaves and comes back to its mark keep its colour and outline?

    python -m framepack.shapes.study_returns [--clips 32] [--steps 8]

The caption names neither, so what comes back is what history shows. While the shape is away the nearest frames come to
show nothing of it; packing by likeness can still choose those that do, in the same number of tokens. Prints JSON: the
share of returns that keep both, with a 95 % interval, for each way to choose history, and the paired differences.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from typing import Any

import torch
from torch import Tensor

from ..planning.video import make_plan
from ..schedule.grammar import parse
from . import shape_measures as measure
from .encode import encode_scene
from .generate import Builtin, generate
from .rendering import backgrounds
from .study_cases import LAMBDA, LED
from .study_numbers import interval
from .wide import sample_away
from .world import COLOURS, Scene, caption, way_out

SCHEDULE = "td_f16k4f2k2f1k1_g9"
NUM_LAT_FRAMES = 82
FIRST_SEED = 70_000
LOOKED_AT = 24  # frames after the return
WAYS: dict[str, dict[str, Any]] = {
    "by time": {},
    "similarity": {"importance": "similarity"},
    "hybrid": {"importance": "hybrid", "time_weight": LAMBDA},
}


def back_at(scene: Scene) -> int:
    """The frame at which the shape rests on its mark again."""
    assert scene.away is not None
    return round(2 * way_out(scene) / scene.away.speed + scene.away.gone)


def scenes_of(num: int) -> list[Scene]:
    """Held-out scenes whose shape is back in time."""
    found: list[Scene] = []
    seed = FIRST_SEED
    while len(found) < num:
        scene = sample_away(random.Random(seed))
        if back_at(scene) + LOOKED_AT < 4 * NUM_LAT_FRAMES - 3:
            found.append(scene)
        seed += 1
    return found


def kept(scene: Scene, pixels: Tensor) -> float:
    """1 if the shape comes back as the first frame shows it: in most of the frames ``t 3 h w`` after its return."""
    plate = backgrounds([scene])[0]
    wanted = shown(scene, plate, pixels[0])
    frames = pixels[back_at(scene) :][:LOOKED_AT:3]
    return float(sum(shown(scene, plate, frame) == wanted for frame in frames) > len(frames) / 2)


def shown(scene: Scene, plate: Tensor, frame: Tensor) -> tuple[str, str] | None:
    """Colour and outline of what stands out in a frame ``3 h w`` from its background, the plate; None for nothing."""
    paint = torch.tensor(scene.colour_values)[:, None, None]
    cover = ((frame - plate).norm(dim=0) / (paint - plate).norm(dim=0)).clamp(0, 1)
    if (cover > 0.6).sum() < 20:
        return None
    (colour,) = measure.nearest_colour(frame[:, cover > 0.6].mean(1)[None], COLOURS)
    alone = torch.stack([cover, torch.zeros_like(cover), torch.zeros_like(cover)])  # as on grey, for the measure
    return colour, measure.outline_of(alone)


def returns(model: Builtin, scenes: list[Scene], steps: int, planned: dict[str, Any]) -> list[float]:
    """For each scene, whether the shape comes back as it was."""
    plan, found = make_plan(parse(SCHEDULE), num_lat_frames=NUM_LAT_FRAMES, **planned), []
    for index, scene in enumerate(scenes):
        start = encode_scene(model.vae, scene, 1)[None]
        clip = generate(model, plan, [caption(scene)], start=start, steps=steps, seed=index, guidance=LED)[0]
        found.append(kept(scene, model.pixels(clip)))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    Builtin.add_options(parser)
    args = parser.parse_args()
    model, scenes = Builtin.load(args.assets, args.device), scenes_of(args.clips)
    found = {name: returns(model, scenes, args.steps, planned) for name, planned in WAYS.items()}
    result = {
        "clips": args.clips,
        "steps": args.steps,
        "kept": {name: str(interval(values)) for name, values in found.items()},
        "more_than_by_time": {
            name: str(interval([a - b for a, b in zip(values, found["by time"], strict=True)]))
            for name, values in found.items()
            if name != "by time"
        },
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
