"""Causal history: it sees only itself, at timestep 0, and its keys and values are computed once for a section."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from framepack.errors import FramePackError
from framepack.models.helios import HeliosDiT
from framepack.models.memo import KEY, Constants, Store
from framepack.models.packed import PackedDiT, check_causal
from framepack.models.wan import WanDiT, WanSpec
from framepack.packing.history import gather
from framepack.packing.treatment import Treatment
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.shapes import builtin
from framepack.shapes.generate import Builtin, generate
from framepack.training.config import Model
from framepack.training.trainees import load

SECTION = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g9"), num_lat_frames=28).sections[-1]


@pytest.fixture(scope="module")
def model() -> Builtin:
    return Builtin.load()


def velocity(dit: PackedDiT, words: dict[str, Tensor], timestep: float, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    timeline = {i: torch.randn(1, 16, 1, 8, 8, generator=generator) for i in range(28)}
    history = gather(SECTION, timeline, torch.empty(1, 16, 1, 8, 8))
    x = torch.randn(1, 16, 9, 8, 8, generator=generator)
    return dit(
        x,
        torch.tensor([timestep]),
        **words,
        positions=SECTION.positions,
        history=history,
        causal_history=True,
        **options,
    )


def test_kept_keys_and_values_equal_recomputing_at_every_level(model: Builtin):
    words, store = model.encoded(["a red star moves up"]), Store()
    options = {"transformer_options": {KEY: Constants(store)}}
    with torch.no_grad():
        for timestep in (999.0, 500.0, 20.0):
            fresh, kept = velocity(model.dit, words, timestep), velocity(model.dit, words, timestep, **options)
            assert torch.equal(fresh, kept)
    assert len(store.memos["past"].held) == 1


@torch.no_grad()
def test_wans_kept_keys_and_values_equal_recomputing():
    torch.manual_seed(0)
    spec = WanSpec(heads=2, head_dim=16, ffn_dim=40, blocks=3, text_dim=24)
    dit, store = WanDiT(spec).eval().requires_grad_(False), Store()
    for weight in dit.parameters():
        weight.normal_(0, 0.2)
    words, options = {"context": torch.randn(1, 5, 24)}, {"transformer_options": {KEY: Constants(store)}}
    for timestep in (999.0, 20.0):
        fresh, kept = velocity(dit, words, timestep), velocity(dit, words, timestep, **options)
        assert torch.equal(fresh, kept)
        assert fresh.std() > 0.01
    assert len(store.memos["past"].held) == 1


def test_the_history_does_not_see_the_section(model: Builtin):
    seen = []
    for noise in (0, 1):
        store = Store()
        x = torch.full((1, 16, 9, 8, 8), float(noise))
        history = gather(SECTION, {i: torch.ones(1, 16, 1, 8, 8) for i in range(28)}, x)
        how = {"transformer_options": {KEY: Constants(store)}, "causal_history": True}
        with torch.no_grad():
            words = model.encoded(["a red star moves up"])
            model.dit(x, torch.tensor([900.0 - noise]), **words, positions=SECTION.positions, history=history, **how)
        seen.append(store.memos["past"].held[0][2])
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


def test_it_is_another_mode_than_full_attention_and_samples_whole_videos(model: Builtin):
    plan = make_plan(parse("f1k1_x_f16k4f2k2f1k1_g9"), num_lat_frames=19)
    start = torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"start": start, "steps": 2, "seed": 0}
    causal = generate(model, plan, ["a red star moves up"], **how, treatment=Treatment(causal=True))
    full = generate(model, plan, ["a red star moves up"], **how)
    assert causal.isfinite().all()
    assert not torch.equal(causal[:, :, 1:], full[:, :, 1:])


def test_training_reaches_the_packing_layers_through_keys_and_values():
    trainee, _ = load(Model(path=builtin.DIT, compute="fp32", checkpointing=False, causal_history=True))
    words = {k: v.clone() for k, v in Builtin.load().encoded(["a red star moves up"]).items()}
    timeline = {i: torch.randn(1, 16, 1, 8, 8) for i in range(28)}
    history = gather(SECTION, timeline, torch.empty(1, 16, 1, 8, 8))
    made = trainee(torch.randn(1, 16, 9, 8, 8), torch.tensor([0.5]), words, SECTION, history)
    made.square().mean().backward()
    grads = [layer.weight.grad for layer in trainee.dit.packing_layers.values()]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads[:2])


def test_a_backbone_without_the_mode_is_named():
    with pytest.raises(FramePackError, match="HeliosDiT"):
        check_causal(HeliosDiT.__new__(HeliosDiT))
