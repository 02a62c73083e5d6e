"""The example of a finetune: 40 clips that teach the built-in model a colour and a shape which it does not know.

    python -m framepack.shapes.lesson clips FOLDER
    python -m framepack.shapes.lesson measure [--lora FILE] [--picture PNG] [--scenes 24]

A third of the clips shows the colour on shapes that it knows, a third the shape in colours that it knows, and the rest
both. `measure` makes videos from captions alone, of scenes that the clips do not show, and prints as JSON the share
whose middle frame has the named colour, and the named shape.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..planning.video import make_plan
from ..sampling.guidance import Guidance
from ..schedule.grammar import parse
from ..training.adapters import merge
from .encode import scene_of
from .encoders import write_video
from .generate import Builtin, generate
from .rendering import render
from .shape_measures import nearest_colour, outline_of, saturation, track
from .world import CIRCUMRADIUS, COLOURS, NEW_COLOURS, NEW_SHAPES, Scene, caption

NUM_CLIPS, NUM_PIX_FRAMES = 40, 73
FIRST_SEED, FIRST_MEASURED = 2_000_000, 3_000_000
SCHEDULE, NUM_LAT_FRAMES, STEPS, CFG = "f1k1_x_g9_f1k1f2k2f16k4_td", 19, 12, 2.5
HOLE = 0.6  # a ring's middle has less of its colour's saturation than this, a whole shape's more


def scenes(first_seed: int, count: int) -> list[Scene]:
    """Scenes in turn with the new colour, with the new shape, and with both."""
    found = []
    for seed in range(first_seed, first_seed + count):
        rng, scene = random.Random(seed), replace(scene_of(seed), spin=0.0)
        colour, shape = rng.choice(list(COLOURS)), rng.choice(list(CIRCUMRADIUS))
        colour = colour if seed % 3 == 1 else next(iter(NEW_COLOURS))
        shape = shape if seed % 3 == 0 else next(iter(NEW_SHAPES))
        placed = replace(scene, colour=colour, shape=shape, start=(32.0, 32.0))
        room = 31.0 - placed.margin
        found.append(replace(placed, start=tuple(32.0 + rng.uniform(-room, room) for _ in range(2))))
    return found


def write_clips(folder: Path, count: int = NUM_CLIPS) -> None:
    """Write the clips and their captions, each in three wordings."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes(FIRST_SEED, count)):
        write_video(render(scene, range(NUM_PIX_FRAMES)).transpose(0, 1), folder / f"{number:02}.mp4")
        lines = [caption(replace(scene, wording=wording)) for wording in range(3)]
        (folder / f"{number:02}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def is_ring(frame: Tensor) -> bool:
    """Does the shape in a frame ``3 h w`` have a hole? Its middle then has little colour beside its rim."""
    seen = track(frame[None])
    if seen.area[0] < 20:
        return False
    x, y = seen.centre[0].round().int().tolist()
    colour = saturation(frame[None])[0]
    middle = colour[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2].mean()
    return bool(middle < HOLE * colour.flatten().quantile(0.98))


def shows(scene: Scene, frame: Tensor) -> tuple[bool, bool]:
    """Does a frame ``3 h w`` show a scene's colour, and its shape?"""
    seen = track(frame[None])
    colour = nearest_colour(seen.colour, COLOURS | NEW_COLOURS)[0] == scene.colour and int(seen.area[0]) >= 20
    ring = is_ring(frame)
    return colour, ring if scene.shape in NEW_SHAPES else not ring and outline_of(frame) == scene.shape


@torch.no_grad()
def measure(model: Builtin, count: int, picture: Path | None = None, batch: int = 12) -> dict[str, float]:
    """Shares of videos from text that show the new colour and the new shape where they are named."""
    plan, found, frames = make_plan(parse(SCHEDULE), num_lat_frames=NUM_LAT_FRAMES, start=False), [], []
    wanted = scenes(FIRST_MEASURED, count)
    for i in range(0, count, batch):
        some = wanted[i : i + batch]
        made = generate(
            model, plan, list(map(caption, some)), start=None, steps=STEPS, seed=i, guidance=Guidance(cfg=CFG)
        )
        for scene, clip in zip(some, made, strict=True):
            middle = model.pixels(clip)[NUM_PIX_FRAMES // 2]
            found.append((scene, *shows(scene, middle)))
            frames.append(middle)
    if picture:
        sheet = rearrange(torch.stack(frames[: count // 6 * 6]), "(r s) c h w -> (r h) (s w) c", s=6)
        Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()).save(picture)
    colours = [colour for scene, colour, _ in found if scene.colour in NEW_COLOURS]
    shapes = [shape for scene, _, shape in found if scene.shape in NEW_SHAPES]
    return {"colour": sum(colours) / len(colours), "shape": sum(shapes) / len(shapes)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("clips").add_argument("folder", type=Path)
    measured = commands.add_parser("measure")
    measured.add_argument("--lora", type=Path)
    measured.add_argument("--picture", type=Path)
    measured.add_argument("--scenes", type=int, default=24)
    args = parser.parse_args()
    if args.command == "clips":
        write_clips(args.folder)
        return
    model = Builtin.load()
    if args.lora:
        merge(model.dit, args.lora)
    sys.stdout.write(json.dumps(measure(model, args.scenes, args.picture)) + "\n")


if __name__ == "__main__":
    main()
