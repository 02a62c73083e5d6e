"""Measure planned endpoints with prompts of their own on the built-in model; prints JSON.

    python -m framepack.shapes.evaluate_endpoints [--clips 16] [--steps 16]

Nine seconds in the inverted order, without an image: a first frame from one caption, and two endpoints, at three and
six seconds, with captions of other colours and outlines. `named_shown`, `colour_shown` and `outline_shown` are the
shares of endpoints whose frame shows their own caption's; `named_shown_first` is that of the first frame, which is
made from text as ever. `seams_smooth_*` are the shares of section seams at which the centre steps no farther than the
data's own (as in `evaluate`): those at which a gap meets an endpoint's first sections, those inside the gaps, and the
difference of the two, clip by clip. Each comes with a 95 % interval from resampling the clips.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import dataclass, replace

from torch import Tensor

from ..planning.plan import Plan
from ..planning.video import Endpoint, make_plan
from ..schedule.grammar import parse
from . import shape_measures as measure
from .encode import encode_scene, scene_of
from .evaluate import Sampling, allowed_step, seam_frames, share, smooth_share
from .generate import Builtin, generate
from .world import CIRCUMRADIUS, COLOURS, Scene, caption

NUM_LAT_FRAMES = 68
ENDPOINTS = (23, 45)  # latent frames, near three and six seconds
PROMPTS = ("first", "second")  # names that stand for the clips' own captions
TRUE_CLIPS = 16  # whose steps after the VAE say what a seam may be
TRUE_LAT_FRAMES = 37


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a clip shows in turn: its start, and each endpoint, all of different colours and outlines."""

    scenes: tuple[Scene, Scene, Scene]

    @classmethod
    def of(cls, seed: int) -> Story:
        """The story of a seed, the same on every machine."""
        rng = random.Random(seed)
        shapes, colours = rng.sample(list(CIRCUMRADIUS), 3), rng.sample(list(COLOURS), 3)
        base = [scene_of(10_000 + 3 * seed + i) for i in range(3)]
        named = zip(base, shapes, colours, strict=True)
        return cls(scenes=tuple(replace(s, shape=shape, colour=colour) for s, shape, colour in named))


def plan_of(schedule: str) -> Plan:
    """The plan of every story."""
    points = [Endpoint(frame=frame, prompt=prompt) for frame, prompt in zip(ENDPOINTS, PROMPTS, strict=True)]
    return make_plan(parse(schedule), num_lat_frames=NUM_LAT_FRAMES, start=False, endpoints=points)


def seams_of(plan: Plan) -> tuple[list[int], list[int]]:
    """Seams at the endpoints' first sections, and those inside the gaps, as pixel frames."""
    at = {4 * frame - 3 for end in ENDPOINTS for frame in (end, _stop(plan, end))}
    inner = {4 * (frame + 1) - 3 for frame in ENDPOINTS}  # between an endpoint's frame and the section right after it
    every = set(seam_frames(plan))
    return sorted(every & at), sorted(every - at - inner)


def _stop(plan: Plan, end: int) -> int:
    """The latent frame at which an endpoint's first section stops."""
    return next(stop for section in plan.sections for start, stop in section.makes if start == end + 1)


def shown(scene: Scene, frame: Tensor) -> tuple[float, float]:
    """Whether a frame ``3 h w`` shows a scene's colour, and its outline."""
    seen = measure.track(frame[None])
    if seen.area[0] < 20:
        return 0.0, 0.0
    colour = measure.nearest_colour(seen.colour, COLOURS)[0]
    return float(colour == scene.colour), float(measure.outline_of(frame) == scene.shape)


def measured(story: Story, frames: Tensor, plan: Plan, allowed: float) -> dict[str, float]:
    """The measures of one clip's frames ``t 3 h w``."""
    places = zip(story.scenes, (0, *ENDPOINTS), strict=True)
    first, *ends = [shown(scene, frames[4 * latent]) for scene, latent in places]
    centre = measure.track(frames).centre
    at, inside = (smooth_share(centre, seams, allowed) for seams in seams_of(plan))
    return {
        "named_shown": sum(colour * outline for colour, outline in ends) / len(ends),
        "colour_shown": sum(colour for colour, _ in ends) / len(ends),
        "outline_shown": sum(outline for _, outline in ends) / len(ends),
        "named_shown_first": first[0] * first[1],
        "seams_smooth_at_endpoints": at,
        "seams_smooth_in_gaps": inside,
        "seams_smooth_difference": at - inside,
    }


def evaluate(model: Builtin, stories: list[Story], how: Sampling) -> dict:
    """All measures over the stories."""
    plan, true = plan_of(how.schedule), [scene_of(seed) for seed in range(TRUE_CLIPS)]
    latents = [model.latent_format.process_in(encode_scene(model.vae, s, TRUE_LAT_FRAMES)[None])[0] for s in true]
    allowed = allowed_step([measure.track(model.pixels(clip)).centre for clip in latents])
    found: list[dict[str, float]] = []
    for i in range(0, len(stories), how.batch):
        some = stories[i : i + how.batch]
        first, *said = [[caption(story.scenes[n]) for story in some] for n in range(3)]
        told = dict(zip(PROMPTS, said, strict=True))
        sampling = {"steps": how.steps, "guidance": how.guidance, "seed": 2000 + i}
        made = generate(model, plan, first, start=None, told=told, **sampling)
        found += [measured(story, model.pixels(clip), plan, allowed) for story, clip in zip(some, made, strict=True)]
    return {name: share([clip[name] for clip in found]) for name in found[0]} | {"allowed_px": round(allowed, 3)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    Sampling.add_options(parser)
    Builtin.add_options(parser)
    args = parser.parse_args()
    how = Sampling.of(args)
    result = evaluate(Builtin.load(args.assets, args.device), [Story.of(seed) for seed in range(args.clips)], how)
    asked = {"clips": args.clips, **how.to_dict()}
    sys.stdout.write(json.dumps(asked | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
