"""Measure the built-in model on clips that training never saw; prints JSON.

    python -m framepack.shapes.evaluate [--clips 64] [--steps 16]

Image to video, five seconds, inverted: `shape_kept` is the share of frames that still show the start frame's
colour with an area within 40 %; `direction_right` the share of clips whose centre, up to the first bounce, moves
the caption's way (at least half the distance due, and more along than across); `seams_smooth` the share of
section seams at which the centre steps no farther than the 99th percentile of the data's own steps, the data as the
VAE gives them back, since that is what the model learns from. Against the data as drawn, whose motion is even while
a decoded latent moves in steps of four frames, it is given too, beside what the true clips come to after the VAE.
Text to video: `named_shown` is the share of clips whose middle frame shows the named colour (the nearest of the six
to the shape's mean colour) and outline (by its corners: the harmonic of order 3, 4 or 5 that stands out, else a
circle); `named_shown_of_true_clips` is what the measure says of true clips after the VAE.
Images from elsewhere (`outside_images.py`), image to video: `shape_kept` and `direction_right` as above, the shape
found against the true background and its colour compared with its own; `background_off` is the mean absolute
difference from the true background outside the shape, in 255ths, and `background_kept` the share of clips where it is
at most 6; `background_off_of_stills` is what the VAE alone makes of a still clip of the image.
Each share comes with a 95 % interval from resampling the clips.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..planning.plan import Plan
from ..planning.video import make_plan
from ..sampling.guidance import Guidance
from ..schedule.grammar import parse
from . import outside_images as outside
from . import shape_measures as measure
from .encode import encode_scene, scene_of
from .generate import Builtin, generate
from .rendering import render
from .world import COLOURS, DIRECTIONS, SPEEDS, Scene, caption

SCHEDULE = "f1k1_x_g9_f1k1f2k2f16k4_td"
NUM_LAT_FRAMES = 37
STEPS = 16
GUIDANCE = Guidance(cfg=3.0, cfg_above=0.9, history=0.5)  # of the shipped workflow
TEXT_CFG = 2.5  # from text alone: the outline needs the text at all levels
NUM_PIX_FRAMES = 4 * NUM_LAT_FRAMES - 3
STILL = 13  # frames of a still clip
MIDDLE = NUM_LAT_FRAMES // 2  # the latent frame that holds the middle frame


def share(per_clip: list[float], resamples: int = 2000) -> dict[str, float | list[float]]:
    """Mean over clips with a 95 % bootstrap interval."""
    values = torch.tensor(per_clip, dtype=torch.float64)
    picks = torch.randint(len(values), (resamples, len(values)), generator=torch.Generator().manual_seed(0))
    low, high = values[picks].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"mean": round(values.mean().item(), 4), "interval": [round(low, 4), round(high, 4)], "n": len(values)}


def steps_of(centre: Tensor) -> Tensor:
    """How far the centre ``t 2`` goes from frame to frame, ``t-1``, in pixels."""
    return (centre[1:] - centre[:-1]).norm(dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The true clips as they are drawn, and as the VAE gives them back: its PSNR, and where the centre is."""

    psnr_db: list[float]
    named: list[float]
    drawn: list[Tensor]
    decoded: list[Tensor]

    @classmethod
    def of(cls, model: Builtin, scenes: list[Scene]) -> Truth:
        """Encode and decode every scene's clip."""
        psnr, named, drawn, decoded = [], [], [], []
        for scene in scenes:
            pixels = render(scene, range(NUM_PIX_FRAMES)).transpose(0, 1)
            latents = encode_scene(model.vae, scene, NUM_LAT_FRAMES)
            back = model.pixels(model.latent_format.process_in(latents[None])[0])
            psnr.append(-10 * math.log10((back - pixels).square().mean().item()))
            named.append(float(shows_named(scene, back[NUM_PIX_FRAMES // 2])))
            drawn.append(measure.track(pixels).centre)
            decoded.append(measure.track(back).centre)
        return cls(psnr_db=psnr, named=named, drawn=drawn, decoded=decoded)


def allowed_step(centres: list[Tensor]) -> float:
    """The 99th percentile of the centre's step from frame to frame."""
    return torch.cat([steps_of(centre) for centre in centres]).quantile(0.99).item()


def seam_frames(plan: Plan) -> list[int]:
    """Pixel frames that begin where another section's latents end."""
    edges = {start for section in plan.sections for start, _ in section.makes if start > 0}
    return sorted(4 * latent - 3 for latent in edges)


def smooth_share(centre: Tensor, seams: list[int], allowed: float) -> float:
    """The share of seams at which the centre ``t 2`` steps no farther than is allowed."""
    return (steps_of(centre)[[frame - 1 for frame in seams]] <= allowed).double().mean().item()


def goes_right_way(scene: Scene, centre: Tensor) -> bool | None:
    """Does the centre ``t 2`` move as captioned up to the first bounce? None where it is due less than 3 px."""
    last = min(int(scene.first_bounce), NUM_PIX_FRAMES - 1)
    due = last * SPEEDS[scene.speed]
    if due < 3:
        return None
    moved = (centre[last] - centre[0]).tolist()
    dx, dy = DIRECTIONS[scene.direction]
    along, across = moved[0] * dx + moved[1] * dy, abs(moved[0] * dy + moved[1] * dx)
    return not math.isnan(along) and along > due / 2 and along > across


def shows_named(scene: Scene, frame: Tensor) -> bool:
    """Does a frame ``3 h w`` show the caption's colour and outline?"""
    seen = measure.track(frame[None])
    if seen.area[0] < 20:
        return False
    colour = measure.nearest_colour(seen.colour, COLOURS)[0]
    return colour == scene.colour and measure.outline_of(frame) == scene.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How clips are sampled: a schedule, steps a section, guidance, and how many clips at once."""

    schedule: str = SCHEDULE
    steps: int = STEPS
    guidance: Guidance = GUIDANCE
    batch: int = 16

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser, steps: int = STEPS) -> None:
        """Options of a command line: --steps, --cfg, --cfg-above, --history."""
        parser.add_argument("--steps", type=int, default=steps)
        parser.add_argument("--cfg", type=float, default=GUIDANCE.cfg)
        parser.add_argument("--cfg-above", type=float, default=GUIDANCE.cfg_above, help="noise level")
        parser.add_argument("--history", type=float, default=GUIDANCE.history, help="history guidance")

    @classmethod
    def of(cls, args: argparse.Namespace, **others: Any) -> Sampling:
        """From these options."""
        guidance = Guidance(cfg=args.cfg, cfg_above=args.cfg_above, history=args.history)
        return cls(steps=args.steps, guidance=guidance, **others)

    def to_dict(self) -> dict[str, Any]:
        """As the results state it."""
        return {"steps": self.steps, "guidance": asdict(self.guidance)}


def image_to_video(model: Builtin, scenes: list[Scene], truth: Truth, how: Sampling) -> dict:
    """The image-to-video measures. Noise comes from a clip's place among the scenes, so that schedules are paired."""
    plan = make_plan(parse(how.schedule), num_lat_frames=NUM_LAT_FRAMES)
    seams = seam_frames(plan)
    bounds = {"decoded": allowed_step(truth.decoded), "drawn": allowed_step(truth.drawn)}
    kept, way = [], []
    smooth: dict[str, list[float]] = {name: [] for name in bounds}
    batch, sampling = how.batch, {"steps": how.steps, "guidance": how.guidance}
    for i in range(0, len(scenes), batch):
        some = scenes[i : i + batch]
        starts = torch.stack([encode_scene(model.vae, scene, 1) for scene in some])
        latents = generate(model, plan, [caption(s) for s in some], start=starts, seed=i, **sampling)
        for scene, clip in zip(some, latents, strict=True):
            seen = measure.track(model.pixels(clip))
            true = measure.track(render(scene, [0]).transpose(0, 1))
            kept.append(measure.start_kept(seen, true, COLOURS).double().mean().item())
            verdict = goes_right_way(scene, seen.centre)
            way += [] if verdict is None else [float(verdict)]
            for name, allowed in bounds.items():
                smooth[name].append(smooth_share(seen.centre, seams, allowed))
    of_truth = [smooth_share(centre, seams, bounds["drawn"]) for centre in truth.decoded]
    return {
        "shape_kept": share(kept),
        "direction_right": share(way),
        "seams_smooth": share(smooth["decoded"]) | {"allowed_px": round(bounds["decoded"], 3)},
        "seams_smooth_against_drawn": share(smooth["drawn"]) | {"allowed_px": round(bounds["drawn"], 3)},
        "seams_smooth_against_drawn_of_true_clips": share(of_truth),
    }


def text_to_video(model: Builtin, scenes: list[Scene], how: Sampling) -> dict:
    """The share of clips that show what the text names."""
    plan = make_plan(parse(how.schedule), num_lat_frames=NUM_LAT_FRAMES, start=False)
    shown: list[float] = []
    batch, sampling = how.batch, {"steps": how.steps, "guidance": how.guidance}
    for i in range(0, len(scenes), batch):
        some = scenes[i : i + batch]
        latents = generate(model, plan, [caption(s) for s in some], start=None, seed=1000 + i, **sampling)
        for scene, clip in zip(some, latents, strict=True):
            shown.append(float(shows_named(scene, model.pixels(clip[:, : MIDDLE + 1])[NUM_PIX_FRAMES // 2])))
    return {"named_shown": share(shown)}


def still_of(model: Builtin, picture: Tensor) -> Tensor:
    """A still clip of a picture ``3 h w``, as the VAE gives it back: ``t 3 h w``."""
    latents = model.encode(picture[None, :, None].expand(-1, -1, STILL, -1, -1))
    return model.pixels(model.latent_format.process_in(latents)[0])


@torch.no_grad()
def from_elsewhere(model: Builtin, how: Sampling) -> dict:
    """The measures of videos from images that the generator cannot draw."""
    plan = make_plan(parse(how.schedule), num_lat_frames=NUM_LAT_FRAMES)
    cases = list(map(outside.case, range(outside.COUNT)))
    starts = torch.cat([model.encode(one.picture[None, :, None]) for one in cases])
    words = [caption(one.scene) for one in cases]
    latents = generate(model, plan, words, start=starts, seed=0, steps=how.steps, guidance=how.guidance)
    kept, way, off = [], [], []
    for one, clip in zip(cases, latents, strict=True):
        frames = model.pixels(clip)
        seen = outside.tracked(frames, one)
        kept.append(outside.shape_kept(seen, one).double().mean().item())
        off.append(255 * outside.background_off(frames, one).mean().item())
        verdict = goes_right_way(one.scene, seen.centre)
        way += [] if verdict is None else [float(verdict)]
    stills = [255 * outside.background_off(still_of(model, one.picture), one).mean().item() for one in cases]
    within = [float(each <= 255 * outside.MOST) for each in off]
    return {
        "shape_kept": share(kept),
        "direction_right": share(way),
        "background_kept": share(within),
        "background_off": share(off) | {"each": [round(each, 1) for each in off]},
        "background_off_of_stills": share(stills),
    }


PARTS = ("image", "text", "outside")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    Sampling.add_options(parser)
    parser.add_argument("--text-cfg", type=float, default=TEXT_CFG, help="of text to video")
    Builtin.add_options(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    model = Builtin.load(args.assets, args.device)
    scenes = [replace(scene_of(seed), wording=seed % 3) for seed in range(args.clips)]
    how, result = Sampling.of(args), {"clips": args.clips}
    result |= how.to_dict() | {"text_cfg": args.text_cfg}
    if "image" in args.parts:
        truth = Truth.of(model, scenes)
        result["image_to_video"] = image_to_video(model, scenes, truth, how)
        result["vae"] = {"psnr_db": share(truth.psnr_db), "named_shown_of_true_clips": share(truth.named)}
    if "text" in args.parts:
        result["text_to_video"] = text_to_video(model, scenes, replace(how, guidance=Guidance(cfg=args.text_cfg)))
    if "outside" in args.parts:
        result["images_from_elsewhere"] = from_elsewhere(model, how)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
