"""Which sections of a plan an earlier run has made, and why the others are made again.

A section depends on its place, history and prompt, on its seed, on what the sampler is given, and on the sections that
it looks at. Inputs of the sampler are compared by whoever knows them: here they are names of what has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .plan import Plan
from .request import END, START, VIDEO
from .section import Section
from .takes import Take, Takes

SLOTS = {START: "start_latent", END: "end_latent", VIDEO: "video_latent"}  # the sampler's inputs; others are anchors
WORDS = {
    "start_latent": "start image",
    "end_latent": "end image",
    "video_latent": "extended video",
    "anchors": "key frames",
    "clip": "text encoder",
    "clip_vision_output": "image embedding",
}
SOME = {"positive", "clip", "seed", "anchors", *SLOTS.values()}  # inputs that do not concern every section
UNMADE = "not generated yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Whether a section is reused, and why, or why not."""

    reused: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """A run: its plan and takes, the sections that it finished, and which inputs of the sampler were other ones then.

    `seed` and `prompt`, the text of the whole video's, were the sampler's, where they are known. `ids` are the ids of
    its finished takes by section index.
    """

    plan: Plan
    takes: Takes = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    finished: frozenset[int] = frozenset()
    ids: dict[int, str] = field(default_factory=dict)
    seed: int | None = None
    prompt: str | None = None


def fates(
    plan: Plan, takes: Takes, runs: Sequence[EarlierRun], seed: int | None = None, prompt: str | None = None
) -> list[Fate]:
    """The fate of each section, by the runs before, the latest first: any of them may have made it.

    `seed` is the sampler's, where it is known; `prompt` the whole video's prompt, where its text is known.
    """
    if not runs:
        return [Fate(reused=False, why=UNMADE)] * len(plan.sections)
    by_run = [_fates(plan, takes, run, seed, prompt) for run in runs]
    return [next((fate for fate in found if fate.reused), found[0]) for found in zip(*by_run, strict=True)]


def summary(found: Iterable[Fate]) -> str:
    """The fates in one line."""
    found = list(found)
    reused = sum(fate.reused for fate in found)
    return f"{reused} of {len(found)} sections reused, {len(found) - reused} to sample"


def _fates(plan: Plan, takes: Takes, run: EarlierRun, seed: int | None, prompt: str | None) -> list[Fate]:
    """The fates by one run."""
    found: list[Fate] = []
    same: list[bool] = []  # a locked section is reused, but may be another take than what this run made
    for index, section in enumerate(plan.sections):
        lock = takes.get(index, Take()).lock
        why = None if lock else _own(plan, run, index, prompt) or _retaken(takes, run, index, seed)
        if lock is None and why is None and (other := [need for need in section.needs if not same[need]]):
            why = f"follows section {other[-1] + 1}"
        found.append(Fate(reused=why is None, why=why or ("locked" if lock else "")))
        same.append(run.ids.get(index) == lock if lock else why is None)
    return found


def _retaken(takes: Takes, run: EarlierRun, index: int, seed: int | None) -> str | None:
    """Why this section is made again by its seed; None if it need not be."""
    take, earlier = takes.get(index, Take()).seed, run.takes.get(index, Take()).seed
    now, then = (seed if take is None else take), (run.seed if earlier is None else earlier)
    unknown = now is None or then is None
    if (take != earlier or (take is None and "seed" in run.changed)) if unknown else now != then:
        return "seed changed" if take is None else "another take"
    return None


def _own(plan: Plan, run: EarlierRun, index: int, prompt: str | None) -> str | None:
    """Why this section is made again, whatever its seed and whatever becomes of others; None if it need not be."""
    before, section = run.plan, plan.sections[index]
    if index not in run.finished or index >= len(before.sections):
        return UNMADE
    if (plan.height, plan.width, plan.geometry) != (before.height, before.width, before.geometry):
        return "size changed"
    if others := sorted(run.changed - SOME):
        return f"{WORDS.get(others[0], others[0])} changed"
    old = before.sections[index]
    if section.makes != old.makes:
        return "other frames"
    if (section.context, section.positions) != (old.context, old.positions):
        return "other history"
    if why := _reworded(section, old, run, prompt):
        return why
    if seen := sorted(_inputs(plan, section) & run.changed):
        return f"{WORDS[seen[0]]} changed"
    return None


def _reworded(section: Section, old: Section, run: EarlierRun, prompt: str | None) -> str | None:
    """Why a section has another prompt. One without a prompt of its own has the whole video's."""
    now = prompt if section.prompt is None else section.prompt
    then = run.prompt if old.prompt is None else old.prompt
    if now is None or then is None:
        changed = section.prompt is not old.prompt or "positive" in run.changed
        return "prompt changed" if changed else None
    if now != then:
        return "prompt changed"
    return "text encoder changed" if "clip" in run.changed else None


def _inputs(plan: Plan, section: Section) -> set[str]:
    """The sampler's inputs of latents from outside that a section looks at."""
    known = section.known
    slots = section.slots | {anchor.slot for anchor in plan.anchors if known & set(anchor.frames)}
    return {SLOTS.get(slot, "anchors") for slot in slots}
