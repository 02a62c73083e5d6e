"""What a step trains on: one section of one plan of the mixture, and clips that are long enough for it.

Everything comes from (seed, step), so a run that stopped draws the same when it goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from ..errors import FramePackError
from ..planning.plan import Plan, Section
from ..planning.request import Endpoint
from ..planning.section import Context
from ..planning.video import make_plan
from ..schedule.grammar import Side
from ..schedule.presets import resolve
from .cache import Clip
from .clips import Clips
from .config import Config, Share

OWN_POSITIONS = 0.75  # of histories in any order: the chance that frames keep their own positions
FIRST_FRAME = Section(makes=((0, 1),), positions=(0,))  # from text alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One step's section, its plan's length, the clips that fill it, their captions, and the shift of the levels."""

    share: Share
    shift: float
    section: Section
    num_lat_frames: int
    clips: tuple[Clip, ...]
    captions: tuple[str, ...]


@cache
def plan_of(share: Share, num_lat_frames: int) -> Plan:
    """The plan of a share over so many latent frames."""
    gap = (num_lat_frames - 1) // (share.anchors + 1)
    points = [Endpoint(frame=gap * i) for i in range(1, share.anchors + 1)]
    return make_plan(
        resolve(share.schedule),
        num_lat_frames=num_lat_frames,
        start=share.start,
        gap=share.gap or None,
        endpoints=points,
    )


def shortest(share: Share) -> int:
    """Latent frames of the shortest clip that a share can use."""
    if not share.schedule:
        return 1
    return share.num_lat_frames or 1 + resolve(share.schedule).generate * (share.anchors + 1)


def longest(share: Share, clips: Clips) -> int:
    """Latent frames of the longest plan that a share draws from these clips."""
    least = shortest(share)
    if not share.schedule or share.num_lat_frames:
        return least
    generate = resolve(share.schedule).generate
    return least + (clips.longest - least) // generate * generate


def positions_of(shares: Iterable[Share], clips: Clips) -> tuple[int, int]:
    """The first and the last latent frame index of all sections of these shares, and of their history."""
    plans = [plan_of(share, longest(share, clips)) for share in shares if share.schedule and share.weight]
    sections = [FIRST_FRAME, *(section for plan in plans for section in plan.sections)]
    seen = [p for section in sections for part in (section, *section.context) for p in part.positions]
    return min(seen), max(seen)


def check(mixture: Sequence[Share], clips: Clips) -> None:
    """Raises FramePackError for a share that no clip is long enough for, or whose plan cannot be."""
    for share in mixture:
        if not share.weight:
            continue
        least = shortest(share)
        if not clips.long_enough(least, share.tag):
            tagged = f" with the tag {share.tag}" if share.tag else ""
            raise FramePackError(
                f"{share.label} needs clips{tagged} of {least} latent frames or more ({4 * least - 3} frames); "
                f"the longest has {clips.longest}. Use longer clips, a schedule with a smaller g, or a smaller "
                "num_lat_frames."
            )
        if share.schedule:
            plan_of(share, least)


def draw(config: Config, step: int, clips: Clips) -> Draw:
    """The draw of a step of a run: clips of one size, and captions of which some are empty."""
    rng, stage = random.Random(f"{config.run.seed}/{step}"), config.at(step)[1]
    share = rng.choices(stage.mixture, [each.weight for each in stage.mixture])[0]
    batch, length = share.batch or config.run.batch, shortest(share)
    picked = clips.draw(rng, length, batch, share.tag)
    if share.schedule and not share.num_lat_frames:  # any whole number of sections that the first clip has room for
        generate = resolve(share.schedule).generate
        length += generate * rng.randint(0, (picked[0].num_lat_frames - length) // generate)
        fitting = clips.long_enough(length, share.tag)[picked[0].grid]
        picked = [picked[0], *rng.choices(fitting, k=batch - 1)]
    section = _section(rng, share, length)
    dropout = config.data.caption_dropout
    captions = ["" if rng.random() < dropout else rng.choice(clip.captions) for clip in picked]
    return Draw(
        share=share,
        shift=share.shift or stage.shift,
        section=section,
        num_lat_frames=length,
        clips=tuple(picked),
        captions=tuple(captions),
    )


def _section(rng: random.Random, share: Share, num_lat_frames: int) -> Section:
    if not share.schedule:
        return FIRST_FRAME
    sections = plan_of(share, num_lat_frames).sections
    section = sections[0] if share.sections == "first" else rng.choice(sections)
    if share.order == "time":
        return section
    side: Side = "future" if resolve(share.schedule).future else "past"
    return reordered(rng, section, num_lat_frames, side)


def reordered(rng: random.Random, section: Section, num_lat_frames: int, side: Side) -> Section:
    """The section with any finished frames of a side in its slots there, as a choice by likeness may fill them.

    Within a group they stand in video time, in half of the draws the nearest frame is next to the section, and mostly
    they keep their own positions relative to it, else they take the slots'. A start frame beyond a skip and tails stay.
    """
    start, stop = section.makes[0][0], section.makes[-1][1]
    left = list(range(start) if side == "past" else range(stop, num_lat_frames))
    if any(list(context.frames) == [0] for context in section.context):
        left = [frame for frame in left if frame]
    nearest = left[-1 if side == "past" else 0] if left and rng.random() < 0.5 else None
    rng.shuffle(left)
    if nearest is not None:  # the first to be given out
        left.sort(key=lambda frame: frame != nearest)
    offset = section.positions[0] - start if side == "past" else section.positions[-1] - stop + 1
    own = rng.random() < OWN_POSITIONS

    def filled(context: Context) -> Context:
        past = context.positions[0] < section.positions[0]
        if context.tail or list(context.frames) == [0] or past != (side == "past"):
            return context
        chosen, empty = sorted(left[: len(context.frames)]), [None] * max(len(context.frames) - len(left), 0)
        del left[: len(context.frames)]
        frames = [*empty, *chosen] if past else [*chosen, *empty]
        places = [
            planned if frame is None or not own else frame + offset
            for frame, planned in zip(frames, context.positions, strict=True)
        ]
        return replace(context, frames=frames, positions=places)

    context = section.context
    if side == "past":  # the nearest slot is the last
        return replace(section, context=tuple(reversed([filled(each) for each in reversed(context)])))
    return replace(section, context=tuple(map(filled, context)))


def part_of(drawn: Draw, items: range) -> Draw:
    """Some of a draw's clips."""
    some = slice(items.start, items.stop)
    return replace(drawn, clips=drawn.clips[some], captions=drawn.captions[some])
