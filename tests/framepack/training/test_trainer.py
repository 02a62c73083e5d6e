"""The training loop: it learns, it resumes bit for bit, it reports, and it rejects what it cannot do."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from framepack.checkpoints.model_file import ModelFile
from framepack.errors import FramePackError
from framepack.training.command import Means, train
from framepack.training.config import History, Lora, Share
from framepack.training.reports import by_level, by_schedule, read_log
from framepack.training.settings import ConfigError
from framepack.training.states import StateError, read_weights
from framepack.training.trainer import DivergedError
from tests.backbones import SMALL

from .made_up import INVERTED, MadeUpEncoder, made_up_config, prepared, saved_model

each = pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)


def weights_after(config):
    trainer = prepared(config).trainer
    assert trainer.run()
    return read_weights(config.run.out / "states" / f"{config.steps:09d}")


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def one_clip(config, **stage):
    """The configuration on one section of one clip of one noise level, over and over."""
    share = Share(schedule=INVERTED, num_lat_frames=5, sections="first")
    return replace(config, stage=(replace(config.stage[0], mixture=(share,), **stage),))


@pytest.mark.parametrize(
    ("small", "optimizer"),
    [(SMALL[0], "adafactor"), (SMALL[0], "muon"), (SMALL[1], "adamw"), (SMALL[2], "adamw")],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_backbone_learns_with_every_optimizer(tmp_path, small, optimizer: str):
    rate = {"adafactor": 3e-2, "adamw": 3e-3, "muon": 3e-3}[optimizer]
    config = one_clip(made_up_config(tmp_path, small), steps=16, optimizer=optimizer, rate=rate)
    trainer = prepared(config).trainer
    losses = [trainer.step().loss for _ in range(16)]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


@pytest.mark.parametrize(
    ("compute", "weights", "optimizer"),
    [("fp32", "fp32", "adafactor"), ("bf16", "fp32", "muon"), ("bf16", "bf16", "adamw")],
)
def test_a_run_that_stops_and_resumes_ends_with_the_same_bits(tmp_path, compute, weights, optimizer):
    config = made_up_config(tmp_path)
    model = replace(config.model, compute=compute, weights=weights)
    first = replace(config.stage[0], steps=2, train="packing", optimizer=optimizer)
    history = History(noise=(0.0, 0.1), downsample=(0.7, 1.0), dropout=0.3)
    config = replace(config, model=model, stage=(first, replace(first, train="full")), history=history)
    config = replace(config, run=replace(config.run, ema=0.9))
    halves = replace(config, run=replace(config.run, out=tmp_path / "halves", save_every=3))
    for stop_at in (1, 3):
        trainer = prepared(halves).trainer
        trainer.run(stop=lambda trainer=trainer, stop_at=stop_at: trainer.done == stop_at)
    prepared(halves).trainer.run()
    assert same(weights_after(config), read_weights(halves.run.out / "states" / "000000004"))
    assert read_log(config.run.out / "log.jsonl") == read_log(halves.run.out / "log.jsonl")


@each
def test_recomputed_activations_and_split_batches_give_the_same_gradients(tmp_path, small):
    config = made_up_config(tmp_path, small)
    other = replace(config, model=replace(config.model, checkpointing=False), run=replace(config.run, at_once=1))
    whole, split = (prepared(c).trainer for c in (config, other))
    assert whole.step().losses == pytest.approx(split.step().losses, rel=1e-5)
    for (name, one), two in zip(whole.model.named_parameters(), split.model.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4), name


@each
def test_only_the_packing_layers_change_where_only_they_are_trained(tmp_path, small):
    config = made_up_config(tmp_path, small)
    trainer = prepared(replace(config, stage=(replace(config.stage[0], train="packing", steps=3),))).trainer
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.run()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("clean_x_embedder." in name or "patch_" in name for name in changed)
    assert not any("patch_embedding" in name for name in changed)


def test_the_log_tells_the_loss_by_noise_level_and_by_schedule(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, stage=(replace(config.stage[0], steps=8),))
    lines = []
    watcher = type("Watcher", (), {"step": lambda self, record, line: lines.append(line)})()
    prepared(config).trainer.run(watchers=[watcher])
    records = read_log(config.run.out / "log.jsonl")
    assert [record.step for record in records] == list(range(1, 9))
    assert set(by_schedule(records)) == {INVERTED, "first frame"}
    assert all(0 <= float(level) < 1 for level in by_level(records))
    assert "left" in lines[-1]


def test_event_files_hold_every_steps_loss_and_are_cut_where_a_run_resumes(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, run=replace(config.run, tensorboard=True, save_every=2))
    with pytest.raises(KeyboardInterrupt):
        prepared(config).trainer.run(sample=None, watchers=[Interrupting(3)])
    prepared(config).trainer.run()
    events = EventAccumulator(str(config.run.out / "tensorboard")).Reload()
    records = read_log(config.run.out / "log.jsonl")
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (record.step, pytest.approx(record.loss)) for record in records
    ]


class Interrupting:
    """A watcher that ends the process's run at a step."""

    def __init__(self, at: int):
        self.at = at

    def step(self, record, line):
        if record.step == self.at:
            raise KeyboardInterrupt


def test_the_running_mean_follows_the_weights(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, run=replace(config.run, ema=0.5))
    trainer = prepared(config).trainer
    start = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.run()
    now, name = dict(trainer.model.named_parameters()), "dit.proj_out.bias"
    mean = trainer.average.mean[name]
    assert (mean - now[name]).norm() < (start[name] - now[name]).norm()
    assert not torch.equal(mean, now[name])
    with trainer.mean_in_place():
        assert torch.equal(now[name], mean)
    assert not torch.equal(now[name], mean)


def test_the_finished_run_is_a_checkpoint_that_trains_on(tmp_path):
    config = made_up_config(tmp_path)
    run = prepared(config)
    run.trainer.run()
    target = run.export(tmp_path / "trained.safetensors")
    held = load_file(target)
    assert ModelFile.open(target).stated["framepack.positions"] == "[0, 11]"
    trained = read_weights(config.run.out / "states" / "000000003")
    assert torch.equal(held["proj_out.weight"], trained["dit.proj_out.weight"].bfloat16())
    again = replace(config, model=replace(config.model, path=target), run=replace(config.run, out=tmp_path / "again"))
    prepared(again).trainer.step()


def test_a_state_of_another_run_is_rejected_by_the_setting_that_differs(tmp_path):
    config = made_up_config(tmp_path)
    prepared(config).trainer.run()
    for other, name in (
        (replace(config, run=replace(config.run, seed=1)), "run.seed"),
        (replace(config, history=History(dropout=0.5)), "history.dropout"),
        (replace(config, lora=Lora(rank=2)), "lora"),
    ):
        with pytest.raises(StateError, match=name):
            prepared(other).trainer.run()
    saved_model(config.model.path, SMALL[0])
    weights = load_file(config.model.path)
    weights["proj_out.bias"] += 1
    save_file(weights, config.model.path)
    with pytest.raises(StateError, match="base"):
        prepared(config).trainer.run()


def test_a_damaged_state_is_named_and_an_older_one_serves(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, run=replace(config.run, save_every=2))
    whole = weights_after(config)
    states = config.run.out / "states"
    (states / "000000003" / "__0_0.distcp").write_bytes(b"cut")
    with pytest.raises(StateError, match="000000003"):
        prepared(config).trainer.run()
    shutil.rmtree(states / "000000003")
    assert same(whole, weights_after(config))


def test_a_disk_that_is_full_leaves_the_last_state_whole(tmp_path, monkeypatch):
    config = made_up_config(tmp_path)
    config = replace(config, run=replace(config.run, save_every=2))
    save, calls = dcp.save, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return save(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(dcp, "save", full)
        with pytest.raises(StateError, match="No space left"):
            prepared(config).trainer.run()
    assert [path.name for path in (config.run.out / "states").iterdir()] == ["000000002"]
    fresh = replace(config, run=replace(config.run, out=tmp_path / "fresh"))
    assert same(weights_after(config), weights_after(fresh))


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(tmp_path):
    config = made_up_config(tmp_path)
    trainer = prepared(config).trainer
    with torch.no_grad():
        trainer.model.dit.proj_out.bias.fill_(float("nan"))
    before = trainer.model.dit.norm_out.linear.weight.clone()
    with pytest.raises(DivergedError, match="step 1"):
        trainer.step()
    assert torch.equal(before, trainer.model.dit.norm_out.linear.weight)


def test_a_schedule_that_no_clip_is_long_enough_for_is_named(tmp_path):
    config = made_up_config(tmp_path)
    stage = replace(config.stage[0], mixture=(Share(schedule="f1k1_x_g9_f1k1_td"),))
    with pytest.raises(FramePackError, match="g9.*10 latent frames"):
        prepared(replace(config, stage=(stage,)))


def test_what_a_backbone_cannot_do_is_said(tmp_path):
    config = made_up_config(tmp_path, next(small for small in SMALL if small.name == "helios"))
    with pytest.raises(ConfigError, match="causal_history"):
        prepared(replace(config, model=replace(config.model, causal_history=True)))


def test_a_pattern_that_matches_no_parameter_is_named(tmp_path):
    config = made_up_config(tmp_path)
    stage = replace(config.stage[0], train="no_such_layer")
    with pytest.raises(FramePackError, match="no_such_layer"):
        prepared(replace(config, stage=(stage,))).trainer.run()


def test_a_configuration_file_runs_to_its_end(tmp_path):
    config = made_up_config(tmp_path)
    text = f"""
[model]
path = "{config.model.path}"
compute = "fp32"
device = "cpu"
[data]
cache = "{config.data.cache}"
[run]
out = "{tmp_path / "out"}"
[[stage]]
steps = 2
[[stage.mixture]]
schedule = "{INVERTED}"
"""
    (tmp_path / "c.toml").write_text(text)
    said = train(tmp_path / "c.toml", Means(encoder=lambda path: MadeUpEncoder(SMALL[0])))
    assert "loss by noise level" in said
    assert (tmp_path / "out" / "model.safetensors").is_file()
