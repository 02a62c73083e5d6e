"""The built-in VAE's training: stages, the decoder alone, and which VAE is taken."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from framepack.shapes import builtin, train_all, train_vae
from framepack.shapes.budget import Budget
from framepack.shapes.making import Making
from framepack.shapes.train_vae import DECODER, DECODING, FURTHER, GOALS, STAGES, Stage, VaeRun, better, stages_for

QUICK = Stage(num_pix_frames=1, batch=1, steps=2, rate=1e-3, wide=0.5)


def run_of(folder: Path, *stages: Stage, start: Path | None = builtin.VAE) -> VaeRun:
    folder.mkdir(exist_ok=True)
    return VaeRun(folder / "vae.safetensors", folder / "state.pt", stages, 0, "cpu", start)


def test_from_scratch_the_decoder_alone_comes_last_and_further_training_has_the_wide_world():
    assert stages_for(None) == STAGES
    assert [stage.decoder for stage in stages_for(builtin.VAE)] == [False, True]
    assert all(0 < stage.wide < 1 for stage in FURTHER)
    assert stages_for(builtin.VAE, decoder=True) == DECODER


def test_training_the_decoder_alone_leaves_the_latents_as_they_are(tmp_path: Path):
    assert run_of(tmp_path, replace(QUICK, decoder=True)).run(Budget())
    before, after = load_file(builtin.VAE), load_file(tmp_path / "vae.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all(name.startswith(DECODING) for name in changed)


def test_a_stage_of_the_whole_vae_before_the_decoders_trains_the_encoder(tmp_path: Path):
    run = run_of(tmp_path, QUICK, replace(QUICK, decoder=True))
    assert run.run(Budget())
    before, after = load_file(builtin.VAE), load_file(tmp_path / "vae.safetensors")
    assert not torch.equal(before["encoder.conv1.weight"], after["encoder.conv1.weight"])
    assert not run.vae.encoder.conv1.weight.requires_grad
    assert run.vae.decoder.conv1.weight.requires_grad


def test_a_run_that_stopped_goes_on_to_the_same_weights_and_keeps_the_steps_that_fitted(tmp_path: Path):
    stages = (QUICK, replace(QUICK, decoder=True))
    whole, parts = run_of(tmp_path / "whole", *stages), run_of(tmp_path / "parts", *stages)
    whole.run(Budget())
    for _ in range(3):
        parts.step()
    parts.save()
    planned = (replace(stages[0], steps=900), replace(stages[1], steps=900))
    resumed = run_of(tmp_path / "parts", *planned)
    assert resumed.stages == stages
    assert resumed.run(Budget())
    one, two = (load_file(tmp_path / name / "vae.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_stages_are_shortened_alike_to_what_fits(tmp_path: Path):
    frames, clips = replace(QUICK, steps=100), Stage(num_pix_frames=13, batch=2, steps=100, rate=1e-3)
    run = run_of(tmp_path, frames, clips)
    run.cut(Budget(deadline=time.monotonic() + 1350, fit=True), each=1.0)  # a clip's step takes 26 s, all of them 2700
    assert [stage.steps for stage in run.stages] == pytest.approx([50, 50], abs=1)
    run.done = 40
    run.cut(Budget(deadline=time.monotonic() + 655, fit=True), each=1.0)  # 10 frames and 50 clips are left: 1310 s
    assert [stage.steps for stage in run.stages] == pytest.approx([45, 25], abs=2)
    run.cut(Budget(deadline=time.monotonic() + 10**6, fit=True), each=1.0)
    assert run.total == pytest.approx(70, abs=4)


def test_what_a_vae_was_trained_from_is_in_its_file(tmp_path: Path):
    run_of(tmp_path, QUICK).save()
    note = train_vae.read_note(tmp_path / "vae.safetensors")
    assert note["before"] == train_vae.read_note(builtin.VAE)
    assert note["stages"][0]["wide"] == 0.5


@pytest.mark.parametrize(
    ("plain", "wide", "taken"),
    [
        (1.0, 1.0, True),
        (0.0, 0.0, False),
        (-0.1, 8.0, True),  # still above the goal
        (-3.0, 8.0, False),
        (1.0, -0.1, False),
        (float("nan"), 8.0, False),
    ],
)
def test_a_vae_is_taken_that_gains_in_one_world_and_stays_above_the_goal_in_the_other(
    plain: float, wide: float, taken: bool
):
    before = {"plain": GOALS["plain"] + 2, "wide": GOALS["wide"] - 8}
    assert better({"plain": before["plain"] + plain, "wide": before["wide"] + wide}, before) == taken


def test_a_run_for_the_decoder_alone_keeps_dit_and_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_vae, "MEASURED", 1)
    monkeypatch.setattr(train_all, "better", lambda trained, before: True)  # two steps may not be better
    monkeypatch.setattr(train_all, "stages_for", lambda start, decoder: (replace(QUICK, decoder=decoder),))
    how = Making(folder=tmp_path, start=builtin.ASSETS, device="cpu", budget=Budget(), stage_seconds=60, decoder=True)
    assert train_all.make(how)
    for asset in (builtin.DIT, builtin.TEXT):
        assert (how.out / asset.relative_to(builtin.ASSETS)).read_bytes() == asset.read_bytes()
    made = load_file(how.out / builtin.VAE.relative_to(builtin.ASSETS))
    before = load_file(builtin.VAE)
    assert torch.equal(made["encoder.conv1.weight"], before["encoder.conv1.weight"])
    assert not torch.equal(made["decoder.conv1.weight"], before["decoder.conv1.weight"])
    assert not (tmp_path / "latents").exists()
