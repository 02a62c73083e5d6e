"""The command line: the tokens of a schedule, the schedule of a rate, the plan of a video; checkpoints converted."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .commands.farm import add_farm
from .commands.generate_video import add_generate
from .commands.history_options import add_choice, choice_fields
from .commands.keep_sections import add_store
from .commands.learn_codebook import add_codebook
from .commands.measure_drift import add_drift
from .commands.train_model import add_train
from .errors import FramePackError
from .pictures.drawing import Picture
from .pictures.plan_picture import draw_plan
from .pictures.schedule_picture import draw_schedule
from .planning.gaps import GAP_RULES
from .planning.orders import order_of
from .planning.plan import Plan, Section
from .planning.request import PlanRequest
from .planning.video import plan_video
from .schedule.grammar import Schedule, TokenCount, count_tokens, parse
from .schedule.presets import PRESETS, resolve
from .schedule.rates import schedule_of_rate
from .schedule.tails import TAILS
from .units import RELEASED

HEIGHT, WIDTH = 480, 832  # pixels; the paper's 480p


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, 2 after a fault of the input, which goes to stderr, or 130 where it was cancelled."""
    arguments = _parser().parse_args(argv)
    try:
        sys.stdout.write(arguments.run(arguments) + "\n")
    except FramePackError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m framepack", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = "a schedule string, or one of " + ", ".join(PRESETS)

    schedule = commands.add_parser("schedule", help="read a schedule and count its tokens")
    schedule.add_argument("schedule", nargs="?", metavar="STRING", help=named)
    schedule.add_argument("--rate", metavar="R", help="instead of STRING: the schedule whose context is R frames long")
    schedule.add_argument("--lambda", dest="lam", type=int, default=2, metavar="N", help="of the rate's terms (2)")
    schedule.add_argument("--presets", action="store_true", help="list the schedules that have a name")
    schedule.set_defaults(run=_schedule)

    plan = commands.add_parser("plan", help="plan a video")
    plan.add_argument("schedule", metavar="STRING", help=named)
    plan.add_argument("--seconds", type=float, required=True, metavar="S")
    plan.add_argument("--fps", type=float, default=30.0)
    plan.add_argument("--exact", action="store_true", help="cut decoded frames beyond the length")
    plan.add_argument("--gap", metavar="RULE", help=", ".join(GAP_RULES))
    plan.add_argument("--no-start", action="store_true", help="without a start image")
    plan.add_argument("--end", action="store_true", help="with an end image, as context only")
    plan.add_argument("--halve", action="store_true", help="fill gaps from their middle")
    add_choice(plan)
    plan.set_defaults(run=_plan)

    convert = commands.add_parser("convert", help="make a FramePack checkpoint of a HunyuanVideo one")
    convert.add_argument(
        "source", metavar="SRC", help="a safetensors or GGUF file, or a folder of shards and its index"
    )
    convert.add_argument("target", metavar="DST", help="a new file")
    convert.add_argument("--type", choices=("Q8_0", "Q4_0"), help="of a DST that ends in .gguf (Q8_0)")
    convert.add_argument("--as", dest="wanted", choices=("helios",), help="make a Helios of a plain Wan 2.1")
    convert.add_argument("--back", action="store_true", help="restore the checkpoint that SRC was made from")
    convert.set_defaults(run=_convert)

    for add in (add_generate, add_drift, add_store, add_codebook, add_train, add_farm):
        add(commands)
    for command in (schedule, plan):
        command.add_argument("--height", type=int, default=HEIGHT, metavar="PX")
        command.add_argument("--width", type=int, default=WIDTH, metavar="PX")
        command.add_argument("--json", action="store_true", help="print JSON")
        command.add_argument("--picture", metavar="PNG", help="draw a picture into a new file")
    return parser


def _schedule(arguments: argparse.Namespace) -> str:
    if arguments.presets:
        return "\n".join(f"{p.name:<10} {p.text}\n{'':<10} {p.note}" for p in PRESETS.values())
    if (arguments.schedule is None) == (arguments.rate is None):
        raise FramePackError("Give either a schedule STRING or --rate R. Try --rate 2.625.")
    if arguments.rate is None:
        schedule = resolve(arguments.schedule)
    else:
        schedule = schedule_of_rate(arguments.rate, lam=arguments.lam)
    grid = RELEASED.latent_grid(arguments.height, arguments.width)
    tokens = count_tokens(schedule, *grid)
    if arguments.picture:
        _save(draw_schedule(schedule, *grid), arguments.picture)
    data = describe(schedule, tokens)
    return json.dumps(data) if arguments.json else _schedule_text(data, arguments)


def describe(schedule: Schedule, tokens: TokenCount) -> dict[str, Any]:
    """A schedule and its tokens as JSON data; `tail_tokens` is per tail frame for ta, and not in the total."""
    return {
        "canonical": str(schedule),
        "sampling": schedule.order,
        "generate": schedule.generate,
        "groups": [
            {
                "frames": group.num_lat_frames,
                "kernel": [group.kernel.t, group.kernel.h, group.kernel.w],
                "side": group.side,
                "tokens": count,
            }
            for group, count in zip(schedule.groups, tokens.groups, strict=True)
        ],
        "tail": schedule.tail,
        "rate": float(schedule.rate),
        "tokens_context": tokens.context,
        "tail_tokens": tokens.tail,
        "tokens_generated": tokens.generated,
        "tokens_total": tokens.total,
    }


def _schedule_text(data: dict[str, Any], arguments: argparse.Namespace) -> str:
    lines = [
        data["canonical"],
        f"sampling   {data['sampling']}, {data['generate']} latent frames a section",
        f"size       {arguments.height} x {arguments.width} pixels",
    ]
    for group in data["groups"]:
        kernel = "x".join(map(str, group["kernel"]))
        lines.append(f"{group['side']:<10} {group['frames']:>5} frames  {kernel:>10}  {group['tokens']:>7} tokens")
    tail = TAILS[data["tail"]].brief
    lines += [
        f"tail       {tail:<25} {data['tail_tokens']:>7} tokens",
        f"context    {'rate ' + format(data['rate'], 'g'):<25} {data['tokens_context']:>7} tokens",
        f"generated  {'':<25} {data['tokens_generated']:>7} tokens",
        f"total      {'':<25} {data['tokens_total']:>7} tokens",
    ]
    return "\n".join(lines)


def _plan(arguments: argparse.Namespace) -> str:
    schedule = resolve(arguments.schedule)
    grid = RELEASED.latent_grid(arguments.height, arguments.width)
    request = PlanRequest.lasting(
        arguments.seconds,
        arguments.fps,
        schedule=schedule,
        exact=arguments.exact,
        start=not arguments.no_start,
        end=arguments.end,
        gap=arguments.gap,
        height=arguments.height,
        width=arguments.width,
        order="halved" if arguments.halve else None,
        **choice_fields(arguments),
    )
    plan = plan_video(request)
    if arguments.picture:
        _save(draw_plan(plan, arguments.fps), arguments.picture)
    return plan.to_json() if arguments.json else _plan_text(plan, grid)


def _convert(arguments: argparse.Namespace) -> str:
    from .checkpoints.convert import convert, restore  # torch is needed for this command alone

    source, target = Path(arguments.source), Path(arguments.target)
    count = restore(source, target) if arguments.back else convert(source, target, arguments.type, arguments.wanted)
    return f"{arguments.target}: {count} tensors"


def _plan_text(plan: Plan, grid: tuple[int, int]) -> str:
    lines = [
        plan.schedule,
        f"{plan.num_lat_frames} latent frames, {_frames_text(plan)}, {len(plan.sections)} sections",
        *(f"{index:>4}  {_section_text(section, grid)}" for index, section in enumerate(plan.sections)),
        *filter(None, [order_of(parse(plan.schedule)).beyond_training(plan.highest)]),
    ]
    return "\n".join(lines)


def _frames_text(plan: Plan) -> str:
    decoded = f" of {plan.num_pix_frames} decoded" if plan.kept else ""
    return f"{len(plan.kept_frames)} frames{decoded}"


def _section_text(section: Section, grid: tuple[int, int]) -> str:
    makes = " and ".join(f"[{start}, {stop})" for start, stop in section.makes)
    missing = sum(frame is None for context in section.context for frame in context.frames)
    tokens = section.num_context_tokens(*grid)
    return f"makes {makes:<24} sees {len(section.known):>4} frames, {missing:>4} not there yet, {tokens:>6} tokens"


def _save(picture: Picture, path: str) -> None:
    try:
        with open(path, "xb") as file:
            picture.save(file, "PNG")
    except OSError as fault:
        raise FramePackError(f"The picture cannot be written ({fault}). Give the path of a new file.") from fault
