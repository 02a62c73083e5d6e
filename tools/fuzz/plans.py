"""Schedules, plans and prompt timelines: each parses, or is refused; what is given back is read again as it was."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framepack.pictures.plan_picture import draw_plan
from framepack.pictures.schedule_picture import draw_schedule
from framepack.planning.importance import IMPORTANCE
from framepack.planning.orders import ORDERS
from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import read, with_prompts
from framepack.planning.request import Endpoint, Extension, lat_frames_for
from framepack.planning.video import make_plan
from framepack.schedule.grammar import count_tokens, parse
from framepack.schedule.presets import resolve
from framepack.schedule.rates import schedule_of_rate

from . import mutate
from .cases import Case

ALPHABET = "fgkhwxtdacD_+0123456789"
RELEASED = ("f1k1_x_g9_f1k1f2k2f16k4_td", "f1k1_x_f16k4f2k2f1k1_g9", "td_f16k4f2k2f1k1_g9_x_f1k1")
NAMES = (*RELEASED, "inverted", "forward", "endpoint", "geometric", "levels")
GAPS = (None, "released", "pinned", "true", "capped:0", "capped:3", "capped:9999", "capped:", "far", "\ud800", "٣")
DRAWN = 40  # one case in so many draws


@contextmanager
def schedules(_: Path) -> Iterator[Case]:
    """Schedule strings, names of presets, and rates."""

    def case(rng: random.Random, given: list[Any]) -> None:
        if rng.random() < 0.1:
            given += [mutate.number(rng) if rng.random() < 0.5 else mutate.text(rng, "2.625", "0123456789./e-")]
            schedule = schedule_of_rate(*given)
        else:
            given += [schedule_text(rng)]
            schedule = resolve(*given)
        again = parse(str(schedule))
        assert again == schedule, f"{schedule} is read as {again}"
        height, width = rng.randrange(1, 130), rng.randrange(1, 130)
        count_tokens(schedule, height, width)
        if rng.randrange(DRAWN) == 0:
            draw_schedule(schedule, height, width)

    yield case


def schedule_text(rng: random.Random) -> str:
    """A schedule: valid, nearly valid, or neither."""
    kind = rng.randrange(4)
    if kind == 0:
        return built(rng)
    if kind == 1:
        return mutate.text(rng, rng.choice(NAMES), ALPHABET)
    if kind == 2:
        return mutate.text(rng, built(rng), ALPHABET)
    return "".join(rng.choice(ALPHABET) for _ in range(rng.choice((1, 5, 30, 490, 501, 600))))


def built(rng: random.Random) -> str:
    """A schedule of parts in some order, more often than not in one that has a meaning."""
    past, future, far = (groups(rng) for _ in range(3))
    generated = f"g{rng.choice((1, 4, 9, 9, 9, 64, 256, 257))}"
    parts = rng.choice(
        (
            [past, generated],
            [past, generated, "x", far],
            [far, "x", past, generated],
            [far, "x", generated, future],
            [generated, future],
            [past, generated, future],
            [past, "x", generated],
        )
    )
    if rng.random() < 0.6:
        parts.insert(rng.choice((0, len(parts))), rng.choice(("td", "ta", "tc")))
    return "_".join(parts) + rng.choice(("",) * 20 + ("+d", "+D"))


def groups(rng: random.Random) -> str:
    """Some groups of frames with their kernels."""
    found = []
    for _ in range(rng.choice((1, 1, 2, 3, 3, 40))):
        frames = rng.choice((1, 1, 2, 4, 16, 64, 512, 4096))
        sides = f"h{rng.choice((2, 4, 8, 128, 7))}w{rng.choice((2, 4, 128))}" if rng.random() < 0.2 else ""
        found.append(f"f{frames}k{rng.choice((1, 1, 2, 4, 8, 64, 65))}{sides}")
    return "".join(found)


@contextmanager
def plans(_: Path) -> Iterator[Case]:
    """Plans from any options, and plan JSON as someone may have edited it."""
    bases = [json.loads(make_plan(parse(text), num_lat_frames=28).to_json()) for text in RELEASED]

    def case(rng: random.Random, given: list[Any]) -> None:
        if rng.random() < 0.5:
            given += [plan_json(rng, rng.choice(bases))]
            plan = Plan.from_json(*given)
        else:
            schedule, options = parse(planned(rng)), options_of(rng)
            given += [str(schedule), options]
            plan = make_plan(schedule, **options)
        again = Plan.from_json(plan.to_json())
        assert again == plan, "the plan's JSON is read as another plan"
        if rng.randrange(DRAWN) == 0:
            draw_plan(plan)

    yield case


def planned(rng: random.Random) -> str:
    """A schedule for a plan, most often a valid one."""
    return rng.choice(NAMES[:3]) if rng.random() < 0.5 else built(rng)


def plan_json(rng: random.Random, base: dict[str, Any]) -> str:
    """A plan's JSON with a fault."""
    if rng.random() < 0.2:
        return mutate.text(rng, json.dumps(base), '{}[]":,0123456789-.eE')
    return json.dumps(mutate.data(rng, base))


def options_of(rng: random.Random) -> dict[str, Any]:
    """Options of make_plan, most often small."""
    num = rng.choice((1, 2, 10, 19, 37, rng.randrange(1, 200), rng.randrange(-5, 12_000)))
    points = [
        Endpoint(
            frame=rng.randrange(-1, max(num, 1) + 2),
            slot=rng.choice((None, "start", "end", "key")),
            prompt=rng.choice((None, "a", "é\n")),
            seconds=rng.choice((None, 1.5)),
        )
        for _ in range(rng.choice((0, 0, 0, 1, 3, num if 0 < num < 100 else 2)))
    ]
    extend = Extension(num_lat_frames=rng.randrange(0, 40), direction=rng.choice(("forwards", "backwards")))
    return {
        "num_lat_frames": num,
        "start": rng.random() < 0.7,
        "end": rng.random() < 0.2,
        "gap": rng.choice(GAPS),
        "no_start": rng.choice(("section", "zero")),
        "endpoints": points,
        "order": rng.choice((None, None, None, "far", *ORDERS)),
        "importance": rng.choice(("far", *IMPORTANCE, *IMPORTANCE, *IMPORTANCE)),
        "extend": extend if rng.random() < 0.15 else None,
    }


@contextmanager
def timelines(_: Path) -> Iterator[Case]:
    """Prompt timelines, with lengths, rates and blends of any size."""
    schedule = parse(RELEASED[1])
    plan = make_plan(schedule, num_lat_frames=46)

    def case(rng: random.Random, given: list[Any]) -> None:
        seconds, fps, blend = rng.choice((6.0, 6.0, 12.5, mutate.number(rng))), rng.choice((30.0, 25.0, 24.0)), 0.0
        if rng.random() < 0.3:
            blend = rng.choice((0.8, 2.0, 60.0, 1e-9))
        given += [timeline_text(rng), seconds, fps, blend]
        lat_frames_for(seconds, fps, schedule)
        told = with_prompts(plan, read(given[0], seconds), fps, blend)
        assert Plan.from_json(told.to_json()) == told, "the plan's JSON is read as another plan"
        if rng.randrange(DRAWN) == 0:
            draw_plan(told, fps)

    yield case


def timeline_text(rng: random.Random) -> str:
    """A timeline: valid, nearly valid, or neither."""
    at, lines = 0.0, []
    for _ in range(rng.choice((0, 1, 2, 3, 6, 600))):
        stop = at + rng.choice((0.04, 0.5, 1.2, 2.5))
        prompt = rng.choice(("a", "a red star moves up", "b:c", "é", "x" * rng.choice((10, 2000, 30_000))))
        lines.append(f"{at:g}-{stop:g}s: {prompt}" if rng.random() < 0.6 else f"{at:g}s: {prompt}")
        at = stop
    text = rng.choice(("\n", "\n", "\r\n", "\n\n# c\n")).join(lines)
    if rng.random() < 0.3:
        return text
    if rng.random() < 0.1:
        return "0" + rng.choice(" \t0.-s:") * rng.choice((100, 50_000)) + "x"
    return mutate.text(rng, text, "0123456789.-s: \n#")
