"""Steps without a finite loss or gradient: left out, counted, and where there are too many the run stops."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from framepack.nn.attention import sdpa
from framepack.shapes import builtin, train_all, train_vae
from framepack.shapes.budget import Budget
from framepack.shapes.making import Making
from framepack.training.config import Stage
from framepack.training.reports import read_log
from framepack.training.trainer import DivergedError, Trainer
from tests.framepack.training.made_up import made_up_config, prepared
from tests.framepack.training.test_builtin import BROAD, TINY, latents  # noqa: F401 - a fixture

STEPS = 6


def trainer_with_bad_steps(folder: Path, *bad: int, skips: int = 1, read_every: int = 3) -> Trainer:
    """A run in which the gradients of some steps, counted from 0, are not finite."""
    config = made_up_config(folder)
    config = replace(config, stage=(replace(config.stage[0], steps=STEPS),))
    config = replace(config, run=replace(config.run, out=folder / "out", skips=skips, read_every=read_every))
    trainer = prepared(config).trainer
    next(trainer.model.parameters()).register_hook(lambda grad: grad * (math.inf if trainer.done in bad else 1.0))
    return trainer


@pytest.mark.parametrize("read_every", [1, 3])
def test_a_step_whose_gradient_is_not_finite_is_left_out_and_counted(tmp_path: Path, read_every: int):
    trainer = trainer_with_bad_steps(tmp_path, 1, read_every=read_every)
    assert trainer.run()
    assert trainer.skipped == 1
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert [record.step for record in read_log(tmp_path / "out" / "log.jsonl")] == [1, 3, 4, 5, 6]


def test_too_many_such_steps_end_the_run_with_the_weights_whole(tmp_path: Path):
    trainer = trainer_with_bad_steps(tmp_path, 1, 4)
    with pytest.raises(DivergedError, match="step 5; run.skips allows 1"):
        trainer.run()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_sound_steps_are_the_same_with_the_guard_and_without(tmp_path: Path):
    guarded, plain = (trainer_with_bad_steps(tmp_path / name, skips=skips) for name, skips in (("a", 1), ("b", 0)))
    for trainer in (guarded, plain):
        trainer.run()
    one, two = guarded.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_training_leaves_out_the_kernel_whose_backward_pass_can_give_nan(tmp_path: Path):
    trainer, seen = prepared(made_up_config(tmp_path)).trainer, []

    def attention(*tensors, **options):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return sdpa(*tensors, **options)

    dit = next(module for module in trainer.model.modules() if hasattr(module, "attention"))
    dit.attention = attention
    before = torch.backends.cuda.cudnn_sdp_enabled()
    trainer.step()
    assert set(seen) == {False}
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def making(folder: Path, start: Path | None = None) -> Making:
    folder.mkdir(parents=True, exist_ok=True)
    budget = Budget(deadline=time.monotonic() + 60, fit=True)
    return Making(folder=folder, start=start, device="cpu", budget=budget, stage_seconds=60)


def test_a_vae_that_is_not_finite_does_not_replace_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_vae, "MEASURED", 2)
    before = load_file(builtin.VAE)
    how, path = making(tmp_path / "run", builtin.ASSETS), tmp_path / "run" / "vae.safetensors"
    save_file({name: value * math.nan for name, value in before.items()}, path)
    train_all.keep_better(how, builtin.VAE)
    after = load_file(path)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_trial_that_is_not_finite_in_bfloat16_goes_on_in_float32(
    latents: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    how = making(tmp_path / "run")
    (tmp_path / "run" / "latents").symlink_to(latents)
    monkeypatch.setattr(Making, "on_gpu", property(lambda _: True))
    monkeypatch.setattr(train_all, "small_spec", lambda: TINY)
    monkeypatch.setattr(train_all, "TRIED", 7)
    monkeypatch.setattr(train_all, "FIRST", 5)
    trainer_of, made = train_all.trainer_of, []

    def with_bad_gradients(run, *rest):
        made.append(trainer_of(run, *rest))
        if run.config.model.compute == "bf16":
            made[-1].model.dit.proj_out.weight.register_hook(lambda grad: grad * math.nan)
        return made[-1]

    monkeypatch.setattr(train_all, "trainer_of", with_bad_gradients)
    mixture = tuple(replace(share, batch=2) for share in BROAD)
    stage = Stage(steps=100, optimizer="muon", rate=1e-3, mixture=mixture, warmup=2)
    trial, precision = train_all.tried(how, (stage,), None, how.budget)
    assert precision == "fp32"
    assert made[1] is trial
    assert trial.clips is made[0].clips
    assert trial.done == 7
    assert trial.skipped == 0
    assert json.loads((tmp_path / "run" / "steps.json").read_text())["tried"] == 7
