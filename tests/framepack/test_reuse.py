"""Which sections of a plan an earlier run has made, and why the others are made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from framepack.pictures.plan_picture import draw_plan
from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import read, with_prompts
from framepack.planning.request import Endpoint
from framepack.planning.reuse import UNMADE, EarlierRun, Fate, fates, summary
from framepack.planning.takes import Take
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse

FORWARD, INVERTED = "td_f16k4f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2f16k4_td"


def planned(schedule: str = FORWARD, num: int = 37, prompts: str = "", **options) -> Plan:
    plan = make_plan(parse(schedule), num_lat_frames=num, height=64, width=64, **options)
    return with_prompts(plan, read(prompts, plan.num_pix_frames / 30), 30)


def run(plan: Plan, **fields) -> EarlierRun:
    """A run that finished all its sections, with an id for each."""
    every = range(len(plan.sections))
    given = {"finished": frozenset(every), "ids": {i: f"{i:016x}" for i in every}} | fields
    return EarlierRun(plan=plan, **given)


def why(plan: Plan, earlier: EarlierRun, takes: dict[int, Take] | None = None) -> list[str]:
    """The reason of each section; empty where it is reused without one."""
    return [fate.why if not fate.reused or fate.why else "" for fate in fates(plan, takes or {}, [earlier])]


def test_the_same_again_is_reused_whole():
    assert why(planned(), run(planned())) == [""] * 4
    assert summary(fates(planned(), {}, [run(planned())])) == "4 of 4 sections reused, 0 to sample"


def test_before_any_run_all_are_to_be_made():
    assert fates(planned(), {}, []) == [Fate(reused=False, why=UNMADE)] * 4


def test_a_prompt_reruns_its_section_and_those_that_see_it():
    lines = "0-2.4s: up\n2.4-3.6s: {}\n3.6s: left"
    before, after = (planned(prompts=lines.format(text)) for text in ("down", "down slowly"))
    assert why(after, run(before)) == ["", "", "prompt changed", "follows section 3"]
    before, after = (planned(INVERTED, prompts=lines.format(text)) for text in ("down", "down slowly"))
    assert why(after, run(before)) == ["", "prompt changed", "follows section 2", "follows section 3"]


def test_a_prompt_of_its_own_that_is_the_whole_videos_changes_nothing():
    plain, told = planned(), planned(prompts="0-3.6s: up\n3.6s: left")
    for plan, earlier in ((told, run(plain, prompt="up")), (plain, run(told, prompt="right"))):
        found = fates(plan, {}, [earlier], prompt="up")
        assert [fate.why for fate in found] == ["", "", "", "prompt changed"]
    assert why(told, run(plain)) == ["prompt changed"] * 4, "the whole video's text is not known"
    assert fates(plain, {}, [run(plain, prompt="right")], prompt="up")[0].why == "prompt changed"


def test_more_time_keeps_a_forward_video_and_nothing_of_an_inverted_one():
    assert why(planned(num=46), run(planned())) == ["", "", "", "", UNMADE]
    assert why(planned(INVERTED, 46), run(planned(INVERTED)))[:2] == ["other frames", "other frames"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("positive", ["prompt changed"] * 4),
        ("seed", ["seed changed"] * 4),
        ("steps", ["steps changed"] * 4),
        ("clip", [""] * 4),
        ("end_latent", [""] * 4),
        ("start_latent", ["start image changed"] * 4),
    ],
)
def test_an_input_of_the_sampler_concerns_those_that_use_it(changed: str, expected: list[str]):
    found = why(planned(INVERTED), run(planned(INVERTED), changed=frozenset({changed})))
    assert [f.replace("follows section 1", expected[0]) for f in found][:1] == expected[:1]
    assert (found == [""] * 4) == (expected == [""] * 4)


def test_the_samplers_own_prompt_leaves_sections_with_their_own_alone():
    plan = planned(prompts="0s: up")
    assert why(plan, run(plan, changed=frozenset({"positive"}))) == [""] * 4
    assert why(plan, run(plan, changed=frozenset({"clip"})))[0] == "text encoder changed"


def test_another_size_makes_all_again():
    assert why(replace(planned(), width=80), run(planned())) == ["size changed"] * 4


def test_another_take_reruns_what_follows_and_the_first_is_found_in_the_run_before():
    plan, takes = planned(), {1: Take(seed=17)}
    first, second = run(plan), run(plan, takes=takes)
    assert why(plan, first, takes) == ["", "another take", "follows section 2", "follows section 3"]
    assert [fate.reused for fate in fates(plan, {}, [second, first])] == [True] * 4
    assert why(plan, run(plan, takes=takes, changed=frozenset({"seed"})), takes)[0] == "seed changed"


def test_a_take_with_the_samplers_own_seed_is_the_same_take():
    plan, same = planned(), {1: Take(seed=5)}
    assert [fate.reused for fate in fates(plan, same, [run(plan, seed=5)], 5)] == [True] * 4
    assert [fate.reused for fate in fates(plan, {}, [run(plan, takes=same, seed=5)], 5)] == [True] * 4
    assert [fate.why for fate in fates(plan, {}, [run(plan, takes=same, seed=5)], 6)][:2] == ["seed changed"] * 2


@pytest.mark.parametrize(
    ("own", "take", "before", "earlier", "reason"),
    [  # the sampler's seed and the section's take now, and in the run before; None is a seed that is not known
        (5, None, 5, None, ""),
        (5, None, 6, None, "seed changed"),
        (5, 9, 6, 9, ""),
        (5, 9, 9, None, ""),
        (5, None, 6, 5, ""),
        (5, 9, 5, 8, "another take"),
        (None, 9, 9, None, ""),
        (None, None, 5, None, ""),
        (5, None, None, 5, ""),
        (5, 9, None, None, "another take"),
        (None, 9, None, 9, ""),
    ],
)
def test_a_section_is_made_again_where_its_seed_is_another_or_may_be(
    own: int | None, take: int | None, before: int | None, earlier: int | None, reason: str
):
    plan = planned()
    now, then = ({} if seed is None else {0: Take(seed=seed)} for seed in (take, earlier))
    found = fates(plan, now, [run(plan, takes=then, seed=before)], own)
    assert found[0].why == reason
    assert found[0].reused == (not reason)


def test_a_locked_section_is_reused_and_what_follows_knows_whether_it_is_another_take():
    plan, own, other = planned(), {1: Take(lock=f"{1:016x}")}, {1: Take(lock="f" * 16)}
    changed = run(plan, changed=frozenset({"seed"}))
    assert why(plan, run(plan), own) == ["", "locked", "", ""]
    assert why(plan, run(plan), other) == ["", "locked", "follows section 2", "follows section 3"]
    assert why(plan, changed, own)[:2] == ["seed changed", "locked"]


def test_only_what_was_finished_is_reused():
    assert why(planned(), run(planned(), finished=frozenset({0, 1}))) == ["", "", UNMADE, UNMADE]


def test_endpoints_of_a_key_frame_ask_for_it():
    plan = planned(INVERTED, endpoints=(Endpoint(frame=18, slot="key"),))
    found = why(plan, run(plan, changed=frozenset({"anchors"})))
    assert "key frames changed" in found


def test_fates_are_drawn_beside_the_rows():
    plan = planned()
    plain, told = draw_plan(plan), draw_plan(plan, fates=fates(plan, {}, [run(plan)]))
    assert plain.size == told.size
    assert plain.tobytes() != told.tobytes()
