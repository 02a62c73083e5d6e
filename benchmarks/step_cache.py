"""The step cache against published rules: error over speed on the built-in model, and what a skipped step costs.

python -m benchmarks.step_cache [--clips N] [--cfg 1 2] [--random] [--picture docs/step-cache.png]

Every clip is made uncached once, then at thresholds of each rule on both sides of each speed, 25 steps a section,
Euler, each section seeing the cached ones before it. Speed is passes over computed passes; the first block that
first-block rules run in a skipped step is left out in their favour. Errors at a speed are read off between two
thresholds. With --random a wider model of random weights stands in for the trained one: it shows that the bookkeeping
holds at another size, not what a video loses.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.packing.history import ContextGroup
from framepack.pipeline import run_plan, section_noise
from framepack.planning.plan import Section
from framepack.planning.video import make_plan
from framepack.sampling.sigmas import flow_sigmas
from framepack.sampling.solvers import euler
from framepack.sampling.step_cache import StepCache
from framepack.schedule.grammar import parse
from framepack.shapes.encode import encode_scene, scene_of
from framepack.shapes.generate import Builtin
from framepack.shapes.world import caption
from framepack.units import BASE

from .curves import draw
from .step_rules import EasyCache, Extrapolated, FirstBlock, FirstBlockSummed, MagCache, Plain, Rule, TeaCache
from .timing import RESULTS, circumstances, ratio, rounds, shown

STEPS, GRID, NUM_LAT_FRAMES = 25, 8, 19
PLAN = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=NUM_LAT_FRAMES)
FIRST_SEED = 900_000  # of scenes that training never saw
SPEEDS = (1.3, 1.6, 2.0, 2.5)
OURS = "this pack's: extrapolated x0"
NEAR, WIDER = 1.15, 4.0  # how far apart in speed two points around one may lie; the step to a lower or higher threshold
MOST = 16  # thresholds of a rule
# A low and a high threshold to begin with.
RULES: dict[str, tuple[type[Rule], float, float]] = {
    OURS: (Extrapolated, 0.06, 1.0),
    "EasyCache": (EasyCache, 0.009, 0.06),
    "TeaCache, uncalibrated": (TeaCache, 0.022, 0.17),
    "first block": (FirstBlock, 0.022, 0.18),
    "first block, summed": (FirstBlockSummed, 0.022, 0.19),
    "MagCache": (MagCache, 0.01, 0.15),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A rule at a threshold: speed in passes and measured, error of latents, PSNR of pixels in dB."""

    speed: float
    wall: float
    error: float
    psnr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What a clip is made from."""

    model: Builtin
    start: Tensor
    said: Tensor
    pooled: Tensor
    seed: int
    cfg: float

    @classmethod
    @torch.no_grad()
    def of(cls, model: Builtin, number: int, cfg: float) -> Clip:
        """Scene and caption by number."""
        scene = scene_of(FIRST_SEED + number)
        start = model.latent_format.process_in(encode_scene(model.vae, scene, 1)[None])
        said, pooled = model.text(torch.tensor([model.tokenizer(text) for text in (caption(scene), "")]))
        return cls(model=model, start=start, said=said, pooled=pooled, seed=number, cfg=cfg)

    @torch.no_grad()
    def make(self, rule_of: Callable[[list[float]], Rule]) -> tuple[Tensor, list[Rule], float]:
        """Latents ``1 c t h w``, a rule for each section, and seconds."""
        rules: list[Rule] = []

        def sample(section: Section, history: list[ContextGroup], index: int) -> Tensor:
            num = section.num_lat_frames
            sigmas = flow_sigmas(STEPS, BASE.num_tokens(num, GRID, GRID))
            rules.append(rule_of(sigmas.tolist()))

            def one(key: int, x: Tensor, sigma: Tensor) -> Tensor:
                def forward(options: dict) -> Tensor:
                    level, row = sigma.expand(1) * 1000, slice(key, key + 1)
                    given = {"positions": section.positions, "history": history, "transformer_options": options}
                    return self.model.dit(x, level, self.said[row], self.pooled[row], **given)

                return rules[-1].velocity(key, float(sigma), x, forward)

            def velocity(x: Tensor, sigma: Tensor) -> Tensor:
                positive = one(0, x, sigma)
                return positive if self.cfg == 1 else torch.lerp(one(1, x, sigma), positive, self.cfg)

            return euler(velocity, section_noise(self.seed, index, (1, 16, num, GRID, GRID)), sigmas)

        began = time.process_time()
        made = run_plan(PLAN, {0: self.start}, sample, like=torch.empty(1, 16, 1, GRID, GRID))
        return made, rules, time.process_time() - began


def measured(clips: list[Clip], plain: list[tuple[Tensor, Tensor, float]], rule_of: Callable) -> Point:
    """A rule over all clips against the uncached latents, pixels and seconds."""
    passes, computed, seconds, errors, noises = 0, 0, 0.0, [], []
    for clip, (latents, pixels, _) in zip(clips, plain, strict=True):
        made, rules, spent = clip.make(rule_of)
        passes, computed = passes + sum(r.passes for r in rules), computed + sum(r.computed for r in rules)
        seconds += spent
        errors.append(float((made - latents).norm() / latents[:, :, 1:].norm()))
        noises.append(float((clip.model.pixels(made[0]) - pixels).square().mean()))
    error, noise = (max(statistics.fmean(values), 1e-12) for values in (errors, noises))
    return Point(passes / computed, sum(p[2] for p in plain) / seconds, error, -10 * math.log10(noise))


def ratios_of(clip: Clip) -> list[float]:
    """MagCache's ratios, from a clip that is not measured."""
    _, rules, _ = replace(clip, cfg=1.0).make(lambda sigmas: Plain(0, sigmas, clip.model.dit))
    steps = [[b / a for a, b in zip(r.norms, r.norms[1:], strict=False)] for r in rules]
    return [1.0, 1.0, *(statistics.fmean(values) for values in zip(*steps, strict=True)), 1.0]


def curves(model: Builtin, num_clips: int, cfg: float, names: list[str]) -> dict[str, list[Point]]:
    """Points of every rule, slowest first."""
    clips = [Clip.of(model, i, cfg) for i in range(num_clips)]
    ratios = ratios_of(Clip.of(model, num_clips, 1.0))
    plain = []
    for clip in clips:
        latents, _, seconds = clip.make(lambda sigmas: Extrapolated(0, sigmas, model.dit))
        plain.append((latents, model.pixels(latents[0]), seconds))
    found = {}
    for name in names:
        kind, low, high = RULES[name]
        own = {"ratios": ratios} if kind is MagCache else {}
        rule = partial(kind, dit=model.dit, **own)
        points = sweep(lambda t, rule=rule: measured(clips, plain, partial(rule, t)), low, high)
        found[name] = sorted((point for point in points if point.speed > 1), key=lambda point: point.speed)
    return found


def sweep(measure: Callable[[float], Point], low: float, high: float) -> list[Point]:
    """Points by threshold, from one below the speeds to one above them, near each other around each."""
    found = {t: measure(t) for t in (low, high)}
    while len(found) < MOST:
        order = sorted(found)
        gaps = [(found[b].speed / found[a].speed, a, b) for a, b in pairwise(order) if parts(found[a], found[b])]
        if found[order[0]].speed > SPEEDS[0]:
            new = order[0] / WIDER
        elif found[order[-1]].speed < SPEEDS[-1]:
            new = order[-1] * WIDER
        elif gaps and max(gaps)[0] > NEAR:
            new = math.sqrt(max(gaps)[1] * max(gaps)[2])
        else:
            break
        found[new] = measure(new)
    return [found[t] for t in sorted(found)]


def parts(a: Point, b: Point) -> bool:
    """Does one of the speeds lie between the two?"""
    return any(a.speed <= speed <= b.speed for speed in SPEEDS)


def at(points: list[Point], speed: float) -> Point | None:
    """Between the two points around a speed, on logarithmic axes."""
    for a, b in zip(points, points[1:], strict=False):
        if a.speed <= speed <= b.speed and a.speed < b.speed:
            u = math.log(speed / a.speed) / math.log(b.speed / a.speed)
            wall, error = (x ** (1 - u) * y**u for x, y in ((a.wall, b.wall), (a.error, b.error)))
            return Point(speed, wall, error, a.psnr + u * (b.psnr - a.psnr))
    return None


def table(found: dict[str, list[Point]]) -> list[str]:
    """Error of latents in percent and PSNR of pixels, for each rule and speed."""
    rows = [f"| rule | {' | '.join(f'{s} times' for s in SPEEDS)} |", "|---" * (len(SPEEDS) + 1) + "|"]
    for name, points in found.items():
        cells = [at(points, speed) for speed in SPEEDS]
        shown_cells = [f"{100 * c.error:.2f} %, {c.psnr:.1f} dB" if c else "-" for c in cells]
        rows.append(f"| {name} | {' | '.join(shown_cells)} |")
    walls = [at(found[OURS], speed) for speed in SPEEDS]
    rows.append(f"| {OURS}, seconds | {' | '.join(f'{c.wall:.2f} times' if c else '-' for c in walls)} |")
    return rows


@torch.no_grad()
def skipped_cost(num: int) -> list[str]:
    """Rows: a skipped step, and the first block alone, over a step of 20 + 40 blocks, 3072 wide."""
    spec = HunyuanSpec(double_blocks=1, single_blocks=1, refiner_blocks=1, text_dim=64, pooled_dim=64, image_dim=None)
    dit = HunyuanDiT(spec, dtype=torch.bfloat16).eval().requires_grad_(False)
    x = torch.randn(1, 16, 9, 8, 12, dtype=torch.bfloat16)
    level, text, pooled = (torch.zeros(*s, dtype=torch.bfloat16) for s in ((1,), (1, 20, 64), (1, 64)))
    kept = {}

    def seen(kind: str) -> dict:
        def patch(args: dict, extra: dict) -> dict:
            kept[kind] = partial(extra["original_block"], args)
            return kept[kind]()

        return {(f"{kind}_block", 0): patch}

    dit(
        x,
        level,
        text,
        pooled,
        level * 0,
        transformer_options={"patches_replace": {"dit": seen("double") | seen("single")}},
    )
    cache = StepCache(100.0, flow_sigmas(STEPS, 216).tolist())
    for sigma in cache.sigmas[:2]:
        cache.run(["positive"], sigma, x.float)
    skips = iter(cache.sigmas[2:-2] * 50)
    times = rounds(kept | {"skipped": lambda: cache.run(["positive"], next(skips), x.float)}, num)
    step = [20 * d + 40 * s for d, s in zip(times["double"], times["single"], strict=True)]
    named = {"a skipped step": "skipped", "the first block alone": "double"}
    return [f"| {a} | {shown(ratio(times | {'step': step}, b, 'step'), 6)} |" for a, b in named.items()]


def random_model(model: Builtin) -> Builtin:
    """A wider DiT of random weights in the built-in one's place."""
    sizes = {"heads": 8, "head_dim": 64, "rope_axes": (8, 28, 28), "double_blocks": 2, "single_blocks": 4}
    spec = replace(model.dit.spec, **sizes)
    torch.manual_seed(0)
    return replace(model, dit=HunyuanDiT(spec).eval().requires_grad_(False))


def main() -> None:
    """Command line; prints and writes benchmarks/results/step_cache.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--cfg", type=float, nargs="*", default=[1.0])
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--picture", type=Path, help="draw the first cfg's curves")
    args = parser.parse_args()
    model = Builtin.load()
    lines = ["# Step cache", "", f"{circumstances()}. {args.clips} clips, {STEPS} steps a section.", ""]
    cases = {f"built-in model, cfg {cfg:g}": curves(model, args.clips, cfg, args.rules) for cfg in args.cfg}
    if args.random:
        wider = random_model(model)
        cases["random weights, 512 wide, 2 + 4 blocks"] = curves(wider, 1, 1.0, args.rules)
    for name, found in cases.items():
        lines += [
            f"{name}: error of the latents, PSNR of the pixels, against the uncached video",
            "",
            *table(found),
            "",
        ]
    if args.picture:
        draw(
            args.picture, {n: [(p.speed, p.error) for p in points] for n, points in next(iter(cases.values())).items()}
        )
    lines += ["| over a step of 20 + 40 blocks, 3072 wide, bf16 | measured |", "|---|---|", *skipped_cost(5)]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step_cache.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
