"""Measure the built-in model on every schedule of the paper's Table 1, with paired clips and seeds; prints JSON.

    python -m framepack.shapes.evaluate_schedules [--clips 32] [--steps 8]

The measures of image to video are those of `evaluate`; a table of them goes to the error stream, with the largest
distance below the best schedule. Each schedule with a group of 512 frames also makes one video of 70 seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace

import torch

from ..planning.video import make_plan
from ..schedule.grammar import parse
from ..schedule.presets import TABLE_1
from . import shape_measures as measure
from .encode import encode_scene, scene_of
from .evaluate import Sampling, Truth, image_to_video
from .generate import Builtin, generate
from .rendering import render
from .world import COLOURS, Scene, caption

log = logging.getLogger(__name__)
MEASURES = ("shape_kept", "direction_right", "seams_smooth")
LONG = 526  # latent frames of 70 seconds
WINDOW = 40  # latent frames that are decoded at once


def long_video(model: Builtin, scene: Scene, how: Sampling) -> dict[str, float]:
    """A 70 s video of one scene: the share of frames of its last five seconds that keep the start shape."""
    plan = make_plan(parse(how.schedule), num_lat_frames=LONG)
    start = encode_scene(model.vae, scene, 1)[None]
    clip = generate(model, plan, [caption(scene)], start=start, steps=how.steps, guidance=how.guidance, seed=0)[0]
    assert clip.shape[1] == LONG
    seen = measure.track(model.pixels(clip[:, -WINDOW:])[-4 * (WINDOW - 3) :])
    true = measure.track(render(scene, [0]).transpose(0, 1))
    return {
        "seconds": (4 * LONG - 3) / 30,
        "kept_at_end": measure.start_kept(seen, true, COLOURS).double().mean().item(),
    }


def shortfall(results: dict[str, dict]) -> dict[str, float]:
    """How far the worst schedule lies below the best, for each measure."""
    means = {name: [result[name]["mean"] for result in results.values()] for name in MEASURES}
    return {name: round(max(values) - min(values), 4) for name, values in means.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=32)
    Sampling.add_options(parser, steps=8)
    Builtin.add_options(parser)
    parser.add_argument("--schedules", nargs="+", default=list(TABLE_1))
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = Builtin.load(args.assets, args.device)
    scenes = [replace(scene_of(seed), wording=seed % 3) for seed in range(args.clips)]
    truth, results = Truth.of(model, scenes), {}
    for name in args.schedules:
        how = Sampling.of(args, schedule=name, batch=args.clips)
        results[name] = image_to_video(model, scenes, truth, how)
        shown = "  ".join(f"{measured} {results[name][measured]['mean']:6.1%}" for measured in MEASURES)
        if "f512" in name:
            results[name]["long"] = long_video(model, scenes[0], how)
            shown += f"  {results[name]['long']['seconds']:.0f} s: {results[name]['long']['kept_at_end']:.0%} kept"
        log.info("%-38s %s", name, shown)
    log.info("largest distance below the best: %s", shortfall(results))
    asked = {"clips": args.clips, **Sampling.of(args).to_dict()}
    sys.stdout.write(json.dumps(asked | {"shortfall": shortfall(results), "schedules": results}, indent=2) + "\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
