"""The wide world, and the images that it cannot draw."""

from __future__ import annotations

import math
import random

import pytest
import torch

from framepack.shapes import outside_images as outside
from framepack.shapes.encode import PARTS, part_of, scene_of
from framepack.shapes.evaluate import goes_right_way
from framepack.shapes.rendering import backgrounds, draw, render
from framepack.shapes.text import UNKNOWN, Tokenizer
from framepack.shapes.train_dit import NUM_TOKENS, WORDS
from framepack.shapes.wide import RADII, nearest, sample_away, sample_wide
from framepack.shapes.world import COLOURS, DIRECTIONS, caption, centres, way_out


def test_a_scene_drawn_among_others_is_the_scene_drawn_alone():
    scenes = [scene_of(seed) for seed in range(4)] + [sample_wide(random.Random(seed)) for seed in range(8)]
    together = draw(scenes, list(range(12)), 5)
    for first, (scene, picture) in enumerate(zip(scenes, together, strict=True)):
        assert torch.allclose(render(scene, range(first, first + 5)), picture, atol=1e-5)
        assert picture.min() >= 0
        assert picture.max() <= 1


def test_wide_scenes_have_other_colours_sizes_and_backgrounds_and_stand_out():
    scenes = [sample_wide(random.Random(seed)) for seed in range(200)]
    assert min(scene.radius for scene in scenes) < RADII[0] + 1
    assert max(scene.radius for scene in scenes) > RADII[1] - 1
    assert 40 < sum(scene.paint is None for scene in scenes) < 120
    tinted = [b.std(0).mean() > 0.01 for b in backgrounds(scenes)]
    assert sum(tinted) > 100
    for scene in scenes:
        assert nearest(scene.colour_values) == scene.colour
        assert scene.backdrop is not None
        assert all(math.dist(scene.colour_values, tint) > 0.3 for tint in scene.backdrop.tints)


def test_captions_of_every_part_are_known_words():
    tokenizer = Tokenizer(WORDS, NUM_TOKENS)
    for part in PARTS:
        for seed in range(part.first, part.first + 40):
            assert part_of(seed) is part
            assert UNKNOWN not in tokenizer(caption(scene_of(seed)))


def test_a_shape_that_leaves_is_gone_and_comes_back_to_its_mark():
    for seed in range(6):
        scene = sample_away(random.Random(seed))
        assert scene.away is not None
        out = way_out(scene) / scene.away.speed
        times = [0, math.ceil(out + 1), int(out + scene.away.gone - 1), math.ceil(2 * out + scene.away.gone) + 1]
        frames, empty = render(scene, times), backgrounds([scene])[0]
        seen = (frames - empty[:, None]).abs().amax((0, 2, 3))
        assert (seen > 0.1).tolist() == [True, False, False, True]
        assert torch.allclose(centres(scene, [times[-1]])[0].float(), torch.tensor(scene.start), atol=1e-6)
        assert not set(caption(scene).split()) & ({scene.colour, scene.shape})


CASES = range(outside.COUNT)


@pytest.mark.parametrize("number", CASES)
def test_an_image_from_elsewhere_is_measured_as_what_it_is(number: int):
    one = outside.case(number)
    still = one.picture[None].expand(3, -1, -1, -1)
    seen = outside.tracked(still, one)
    assert outside.shape_kept(seen, one).all()
    assert outside.background_off(still, one).max() < 0.5 / 255
    assert (seen.centre[0] - torch.tensor(one.scene.start)).norm() < 0.5
    assert nearest(tuple(one.paint.tolist())) == one.scene.colour
    worse = (still + torch.tensor([0.04, -0.03, 0.04])[:, None, None]).clamp(0, 1)
    assert outside.background_off(worse, one).min() > outside.MOST
    covered = one.paint[None, :, None, None].expand_as(still)
    assert outside.background_off(covered, one).min() > outside.MOST
    gone = one.plate[None]
    assert not outside.shape_kept(outside.tracked(gone, one), one).any()


def test_images_from_elsewhere_move_far_enough_and_are_all_different():
    cases = [outside.case(number) for number in CASES]
    assert sum(outside.moving(one) for one in cases) >= 16
    assert {one.scene.direction for one in cases} == set(DIRECTIONS)
    assert len({tuple(one.paint.tolist()) for one in cases}) == outside.COUNT
    assert all(one.paint.tolist() not in [list(c) for c in COLOURS.values()] for one in cases[1:])


def test_a_true_motion_goes_the_captions_way():
    one = outside.case(0)
    still = centres(one.scene, range(145)).float()
    assert goes_right_way(one.scene, still)
    assert not goes_right_way(one.scene, still.flip(0))
