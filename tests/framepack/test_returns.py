"""The similarity test measures what it says: whether a shape that comes back shows what it showed at first."""

from __future__ import annotations

from dataclasses import replace

from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.shapes.rendering import render
from framepack.shapes.study_returns import LOOKED_AT, NUM_LAT_FRAMES, SCHEDULE, WAYS, back_at, kept, scenes_of
from framepack.shapes.world import COLOURS, Scene

NUM_FRAMES = 4 * NUM_LAT_FRAMES - 3


def another(scene: Scene) -> Scene:
    """The scene with a shape of another colour and outline."""
    colour = next(name for name in COLOURS if name != scene.colour)
    return replace(scene, colour=colour, paint=None, shape="circle" if scene.shape != "circle" else "star")


def test_every_shape_is_back_in_time_and_true_clips_keep_theirs():
    for scene in scenes_of(6):
        clip = render(scene, range(NUM_FRAMES)).transpose(0, 1)
        assert back_at(scene) + LOOKED_AT < NUM_FRAMES
        assert kept(scene, clip) == 1.0


def test_another_shape_that_comes_back_is_not_the_one_that_left():
    for scene in scenes_of(6):
        clip = render(scene, range(NUM_FRAMES)).transpose(0, 1).clone()
        clip[back_at(scene) :] = render(another(scene), range(back_at(scene), NUM_FRAMES)).transpose(0, 1)
        assert kept(scene, clip) == 0.0


def test_a_shape_that_stays_away_is_not_kept():
    scene = scenes_of(1)[0]
    gone = replace(scene, away=replace(scene.away, gone=10_000))
    assert kept(scene, render(gone, range(NUM_FRAMES)).transpose(0, 1)) == 0.0


def test_every_way_sees_as_many_tokens():
    plans = [make_plan(parse(SCHEDULE), num_lat_frames=NUM_LAT_FRAMES, **planned) for planned in WAYS.values()]
    tokens = [[section.num_context_tokens(8, 8) for section in plan.sections] for plan in plans]
    assert tokens[0] == tokens[1] == tokens[2]
