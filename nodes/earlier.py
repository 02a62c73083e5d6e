"""Runs before, as the page remembers them: which sections of the plan now drawn they have made. And the plan as data.

The page sends, for each run, the planner's inputs then, the sampler's takes, the names of the sampler's inputs that
were other ones, and the sections that were finished with their ids. One that cannot be planned any more counts as none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..framepack.errors import FramePackError, quoted
from ..framepack.planning.json_fields import object_of
from ..framepack.planning.plan import Plan
from ..framepack.planning.prompt_timeline import Stretch, read
from ..framepack.planning.reuse import EarlierRun, Fate, fates
from ..framepack.planning.takes import ID, read_takes

MAX_RUNS = 8
MAX_NAMES = 64  # of the sampler's inputs
MAX_STRETCHES = 100  # that the page edits in its timeline
FIELDS = {"inputs", "takes", "seed", "prompt", "changed", "finished"}


def fates_of(plan: Plan, request: Mapping[str, Any], plan_before: Callable[[Mapping[str, Any]], Plan]) -> list[Fate]:
    """The fate of each section by the request's runs. `plan_before` plans a run's own inputs. Raises FramePackError."""
    runs, takes = request["runs"], read_takes(request.get("takes", ""))
    if not isinstance(runs, list) or len(runs) > MAX_RUNS:
        raise FramePackError(f"A request has at most {MAX_RUNS} runs; got {quoted(runs)}.")
    before = list(filter(None, (_run(run, plan_before) for run in runs)))
    return fates(plan, takes, before, _seed(request.get("seed")), _prompt(request.get("prompt")))


def _run(data: Any, plan_before: Callable[[Mapping[str, Any]], Plan]) -> EarlierRun | None:
    given = object_of(data, "A run", FIELDS, set())
    changed, finished = given["changed"], given["finished"]
    if not isinstance(changed, list) or len(changed) > MAX_NAMES or not all(isinstance(n, str) for n in changed):
        raise FramePackError(f"The inputs that have changed are names; got {quoted(changed)}.")
    if not isinstance(given["inputs"], Mapping):
        raise FramePackError(f"A run's inputs are an object; got {quoted(given['inputs'])}.")
    try:
        plan = plan_before(given["inputs"])
    except FramePackError:
        return None
    ids = {int(i): take for i, take in _finished(finished, len(plan.sections))}
    return EarlierRun(
        plan=plan,
        takes=read_takes(given["takes"]),
        changed=frozenset(changed),
        seed=_seed(given["seed"]),
        prompt=_prompt(given["prompt"]),
        finished=frozenset(ids),
        ids={i: take for i, take in ids.items() if take is not None},
    )


def _seed(data: Any) -> int | None:
    """A seed as text, or None. The page's own numbers do not hold every seed."""
    if data is None or (isinstance(data, str) and re.fullmatch(r"[0-9]{1,20}", data, re.ASCII)):
        return None if data is None else int(data)
    raise FramePackError(f"A seed is text of up to 20 digits, or null; got {quoted(data)}.")


def _prompt(data: Any) -> str | None:
    """The text of the whole video's prompt, or None where the page does not know it."""
    if data is None or isinstance(data, str):
        return data
    raise FramePackError(f"The prompt is text, or null; got {quoted(data)}.")


def _finished(data: Any, num: int) -> list[tuple[int, str | None]]:
    """Pairs of a section's index and its take's id, or None."""
    if isinstance(data, list) and len(data) <= num:
        pairs = [tuple(pair) for pair in data if isinstance(pair, list) and len(pair) == 2]
        if len(pairs) == len(data) and all(_is_finished(pair, num) for pair in pairs):
            return pairs
    raise FramePackError(f"The finished sections are pairs of a number and an id; got {quoted(data)}.")


def _is_finished(pair: tuple[Any, Any], num: int) -> bool:
    index, take = pair
    numbered = type(index) is int and 0 <= index < num
    return numbered and (take is None or (isinstance(take, str) and ID.fullmatch(take) is not None))


def plan_data(plan: Plan, fps: float, prompts: str, found: list[Fate]) -> dict[str, Any]:
    """What the page edits in its timeline: seconds, sections in order of generation, prompts with their places."""
    kept, temporal = plan.kept_frames, plan.geometry.temporal

    def seconds(frame: int) -> float:
        pixel = min(max(temporal * (frame - 1) + 1 if frame else 0, kept.start), kept.stop)
        return round((pixel - kept.start) / fps, 3)

    stretches = read(prompts, len(kept) / fps)
    return {
        "seconds": round(len(kept) / fps, 3),
        "sections": [[seconds(start), seconds(stop)] for start, stop in (s.makes[0] for s in plan.sections)][:1000],
        "reused": [fate.reused for fate in found][:1000],
        "stretches": None if len(stretches) > MAX_STRETCHES else [_stretch(s, prompts) for s in stretches],
    }


def _stretch(stretch: Stretch, text: str) -> list[Any]:
    """Start, stop, and where its times and its prompt stand in the text, in the page's units: UTF-16."""
    places = (len(text[:at].encode("utf-16-le", "surrogatepass")) // 2 for at in (*stretch.at, *stretch.told))
    return [stretch.start, stretch.stop, *(places if stretch.prompt is not None else ())]
