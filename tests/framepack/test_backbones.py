"""What every backbone does with a packed history. A third one joins by an entry in tests/backbones.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.errors import CheckpointError, LatentSizeError
from framepack.models.backbones import POSITIONS, backbone_of, backbones
from framepack.packing.history import gather
from framepack.planning.plan import Section
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from tests.backbones import SMALL, Small
from tests.names import TABLE_1

MODELS = {small.name: small.model() for small in SMALL}
each = pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)


def test_every_backbone_is_found_and_tested():
    assert {b.name for b in backbones()} == {small.backbone.name for small in SMALL}


def filled(section: Section, height: int, width: int) -> tuple[torch.Tensor, list]:
    """Noisy latents of a section, and its history from random latents."""
    torch.manual_seed(1)
    x = torch.randn(1, 16, section.num_lat_frames, height, width)
    known = {f for c in section.context for f in c.frames if f is not None}
    return x, gather(section, {f: torch.randn(1, 16, 1, height, width) for f in known}, x)


def widened(history: list, small: Small) -> list:
    """The history with the channels that the model takes."""
    short = small.spec.in_channels - 16
    pad = (0, 0, 0, 0, 0, 0, 0, short)
    return [replace(group, latents=torch.nn.functional.pad(group.latents, pad)) for group in history]


@each
@pytest.mark.parametrize("name", TABLE_1)
def test_every_schedule_runs_on_exactly_the_tokens_that_its_plan_states(small: Small, name: str):
    model = MODELS[small.name]
    for section in make_plan(parse(name), num_lat_frames=40).sections[-2:]:
        x, history = filled(section, 6, 10)
        whole = torch.randn(1, small.spec.in_channels, *x.shape[2:])
        tokens, phases = model.pack(whole, section.positions, widened(history, small))
        assert tokens.shape[1] == phases.shape[1]
        assert tokens.shape[1] == section.num_context_tokens(6, 10) + section.num_lat_frames * 3 * 5
        out = small.run(model, x, section.positions, history)
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


@each
@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(TABLE_1),
    num=st.integers(2, 80),
    which=st.floats(0, 1),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
def test_any_length_and_size_gives_the_tokens_of_the_plan(small: Small, name, num, which, height, width):
    sections = make_plan(parse(name), num_lat_frames=num).sections
    section = sections[int(which * (len(sections) - 1))]
    x, history = filled(section, 2 * height, 2 * width)
    x = torch.randn(1, small.spec.in_channels, *x.shape[2:])
    tokens, phases = MODELS[small.name].pack(x, section.positions, widened(history, small))
    expected = section.num_context_tokens(2 * height, 2 * width) + section.num_lat_frames * height * width
    assert tokens.shape[1] == phases.shape[1] == expected


@each
def test_a_shift_of_all_positions_changes_nothing(small: Small):
    """RoPE with random access (section 3.1): only gaps matter, also far beyond any length seen."""
    section = make_plan(parse("td_f16k4f2k2f1k1_g9"), num_lat_frames=40).sections[-1]
    x, history = filled(section, 6, 6)
    here = small.run(MODELS[small.name], x, section.positions, history)
    far = [replace(g, positions=tuple(p + 5000 for p in g.positions)) for g in history]
    there = small.run(MODELS[small.name], x, tuple(p + 5000 for p in section.positions), far)
    assert (here - there).norm() < 1e-2 * here.norm()


@each
def test_the_history_is_seen_and_without_it_the_model_is_the_plain_one(small: Small):
    section = make_plan(parse("td_f16k4f2k2f1k1_g9"), num_lat_frames=40).sections[-1]
    x, history = filled(section, 6, 6)
    model = MODELS[small.name]
    plain = small.run(model, x)
    assert torch.equal(plain, small.run(model, x, range(section.num_lat_frames), ()))
    assert not torch.allclose(plain, small.run(model, x, section.positions, history), atol=1e-3)
    with pytest.raises(LatentSizeError, match="8 .* 3 "):
        small.run(model, x, range(8))


@each
def test_a_size_that_patches_do_not_divide_comes_back_as_it_was(small: Small):
    x = torch.randn(2, 16, 3, 5, 7)
    assert small.run(MODELS[small.name], x).shape == x.shape


@each
def test_the_hosts_patches_can_replace_a_block(small: Small):
    model, x, seen = MODELS[small.name], torch.randn(1, 16, 2, 4, 4), []

    def watch(args, extra):
        seen.append(args["img"].shape)
        return extra["original_block"](args)

    patched = small.run(model, x, patches_replace={"dit": {("double_block", 1): watch}})
    assert torch.equal(patched, small.run(model, x))
    assert seen == [(1, 8, small.spec.width)]


@each
def test_the_spec_is_read_off_the_shapes(small: Small):
    shapes = {k: tuple(v.shape) for k, v in MODELS[small.name].state_dict().items()}
    assert backbone_of(shapes) is small.backbone
    stated = {"rope_axes": getattr(small.spec, "rope_axes", None), "rope_theta": 256.0, "head_dim": small.spec.head_dim}
    assert small.backbone.spec.from_shapes(shapes, {"framepack.spec": json.dumps(stated)}) == small.spec


@each
def test_every_module_is_reached_by_an_original_name(small: Small):
    shapes = MODELS[small.name].state_dict()
    names = small.backbone.names
    numbers = range(3)
    reached = {
        name
        for pattern in names.layers
        for i in (numbers if "#" in pattern else [0])
        for name in names.layer(pattern.replace("#", str(i))).names
    }
    for key in shapes:
        module = key if key in reached else key.rpartition(".")[0]
        own = (*small.backbone.packing.values(), "history_key_scale")
        assert module in reached or module.endswith(own) or key.endswith(own), key


@each
def test_the_positions_of_the_training_are_the_files_own_or_the_releases(small: Small):
    shapes = {k: tuple(v.shape) for k, v in MODELS[small.name].state_dict().items()}
    backbone = small.backbone
    stated = {
        "framepack.spec": json.dumps({"rope_axes": (4, 6, 6), "rope_theta": 256.0, "head_dim": small.spec.head_dim})
    }
    spec = backbone.spec.from_shapes(shapes, stated | {POSITIONS: "[0, 629]"})
    assert backbone.trained_positions(spec, "inverted") == range(630)
    released = {"inverted": range(56), "forward": range(29)} if backbone.key == "hunyuan" else {}
    for order in ("inverted", "forward", "another"):
        assert backbone.trained_positions(small.spec, order) == released.get(order)
    for wrong in ("[3, 2]", "[0]", "[0, 1.5]", "null", "no", "[" * 9999):
        with pytest.raises(CheckpointError):
            backbone.spec.from_shapes(shapes, stated | {POSITIONS: wrong})


@each
def test_a_backbone_states_the_geometry_that_its_layers_have(small: Small):
    geometry, model = small.spec.geometry, MODELS[small.name]
    assert tuple(model.patchify.weight.shape[2:]) == (1, geometry.patch, geometry.patch)
    assert model.proj_out.weight.shape[0] == geometry.channels * geometry.patch**2
