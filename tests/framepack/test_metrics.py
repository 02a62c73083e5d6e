"""What the simple image measures say of outlines."""

from __future__ import annotations

import pytest
import torch

from framepack.shapes.encode import encode_scene, scene_of
from framepack.shapes.generate import Builtin
from framepack.shapes.shape_measures import outline_of
from framepack.shapes.world import CIRCUMRADIUS


@pytest.mark.parametrize("shape", CIRCUMRADIUS)
def test_true_outlines_are_named_after_the_vae(shape: str):
    """On clips of held-out seeds, first frames and turned ones."""
    model, named = Builtin.load(), []
    for seed in range(40):
        scene = scene_of(seed)
        if scene.shape == shape:
            latents = encode_scene(model.vae, scene, 4)[None]
            frames = model.pixels(model.latent_format.process_in(latents)[0])
            named += [outline_of(frames[0]) == shape, outline_of(frames[-1]) == shape]
    assert len(named) >= 10
    assert sum(named) / len(named) >= 0.9


def lobed(corners: int, depth: float) -> torch.Tensor:
    """A red disc on grey, ``3 64 64``, whose radius swings by a share of itself so many times around."""
    side = torch.arange(64) - 31.5
    y, x = torch.meshgrid(side, side, indexing="ij")
    radius = 11 * (1 + depth * (corners * torch.atan2(y, x)).cos())
    inside = (radius - torch.hypot(x, y)).add(0.5).clamp(0, 1)
    return torch.lerp(torch.full((3, 64, 64), 0.3), torch.tensor([0.9, 0.15, 0.15])[:, None, None], inside)


def test_a_disc_that_is_a_little_uneven_is_a_circle():
    assert outline_of(lobed(3, 0.03)) == outline_of(lobed(4, 0.01)) == outline_of(lobed(5, 0.01)) == "circle"


@pytest.mark.parametrize(("corners", "name"), [(3, "triangle"), (4, "square"), (5, "star")])
def test_corners_that_stand_out_name_the_outline(corners: int, name: str):
    assert outline_of(lobed(corners, 0.25)) == name
    assert outline_of(torch.rot90(lobed(corners, 0.25), dims=(1, 2))) == name


def test_an_empty_picture_is_no_corner():
    assert outline_of(torch.full((3, 64, 64), 0.3)) == "circle"
