"""What the evaluation of planned endpoints asks of the model, and which seams it compares."""

from __future__ import annotations

from framepack.shapes.evaluate import SCHEDULE, seam_frames
from framepack.shapes.evaluate_endpoints import ENDPOINTS, PROMPTS, Story, plan_of, seams_of


def test_every_endpoint_has_its_own_prompt_and_stands_alone():
    plan = plan_of(SCHEDULE)
    for frame, prompt in zip(ENDPOINTS, PROMPTS, strict=True):
        (own,) = [section for section in plan.sections if section.makes == ((frame, frame + 1),)]
        assert own.prompt == prompt
        assert own.context == ()
    assert {section.prompt for section in plan.sections} == {None, *PROMPTS}


def test_a_storys_scenes_differ_in_colour_and_outline():
    for seed in range(20):
        scenes = Story.of(seed).scenes
        assert len({scene.colour for scene in scenes}) == len({scene.shape for scene in scenes}) == 3
    assert Story.of(3) == Story.of(3)


def test_seams_at_endpoints_and_in_gaps_are_told_apart():
    plan = plan_of(SCHEDULE)
    at, inside = seams_of(plan)
    assert at == [4 * frame - 3 for end in ENDPOINTS for frame in (end, end + 10)]
    assert not set(at) & set(inside)
    assert set(at) | set(inside) < set(seam_frames(plan))
    assert len(inside) >= 5
