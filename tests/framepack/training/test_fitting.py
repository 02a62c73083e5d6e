"""The memory that a run states before its first step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from framepack.errors import TooLittleMemoryError
from framepack.training.fitting import Footprint, check, footprint_of
from framepack.training.footprint import Tally
from framepack.training.optimizers import Optimizers, state_bytes
from tests.backbones import SMALL

from .made_up import made_up_config, prepared


def test_tensors_are_counted_from_their_making_to_their_end():
    with Tally() as tally:
        x = torch.empty(1000, device="meta")
        y = x * 2
        y.view(10, 100).add_(1)
        del x
        assert tally.now == 4000
        z = torch.cat([y, y])
        del y, z
    assert tally.now == 0
    assert tally.most == 4000 + 8000


def test_views_of_tensors_from_outside_count_nothing():
    outside = torch.empty(30, 40, device="meta")
    with Tally() as tally:
        made = outside.t() @ outside
    assert tally.most == made.nbytes


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw", "muon"])
def test_the_optimizers_state_takes_what_was_said(tmp_path, optimizer: str):
    config = made_up_config(tmp_path)
    trainer = prepared(config).trainer
    stage = replace(config.stage[0], optimizer=optimizer)
    named = trainer.trained_by(stage)
    optimizers = Optimizers(named, stage)
    optimizers.begin(named)
    held = [value for values in optimizers.state().values() for value in values.values() if value.ndim]
    assert sum(value.numel() * 4 for value in held) == state_bytes(named, optimizer)[0]


def test_recomputation_and_smaller_batches_take_less(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, run=replace(config.run, batch=96), model=replace(config.model, checkpointing=False))
    trainer = prepared(config).trainer
    most = footprint_of(trainer, config)
    recomputed = footprint_of(trainer, replace(config, model=replace(config.model, checkpointing=True)))
    single = footprint_of(trainer, replace(config, run=replace(config.run, at_once=1)))
    assert recomputed.step < most.step
    assert single.step < most.step
    assert most.weights == sum(p.numel() * 4 for p in trainer.model.parameters())


def test_several_processes_share_weights_and_gradients_out_but_not_activations(tmp_path):
    config = made_up_config(tmp_path)
    trainer = prepared(replace(config, run=replace(config.run, batch=8))).trainer
    one, four = (footprint_of(trainer, trainer.config, shards) for shards in (1, 4))
    assert four.weights == one.weights // 4
    assert four.optimizer == one.optimizer // 4
    gradients = one.weights
    single = replace(trainer.config, run=replace(trainer.config.run, at_once=2))
    assert four.step < footprint_of(trainer, single).step
    assert four.step > gradients // 4


def test_a_run_that_cannot_fit_says_what_would(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, run=replace(config.run, batch=96), model=replace(config.model, checkpointing=False))
    trainer = prepared(config).trainer
    found = footprint_of(trainer, config)
    assert isinstance(check(trainer, found.peak), Footprint)
    assert check(trainer, None) == found
    single = footprint_of(trainer, replace(config, run=replace(config.run, at_once=1)))
    with pytest.raises(TooLittleMemoryError, match="run.at_once = 1"):
        check(trainer, single.peak)
    with pytest.raises(TooLittleMemoryError) as raised:
        check(trainer, 1000)
    assert "would fit" not in str(raised.value)


def test_the_model_is_left_as_it_was(tmp_path):
    trainer = prepared(made_up_config(tmp_path, SMALL[1])).trainer
    before = [(p.requires_grad, p.data_ptr()) for p in trainer.model.parameters()]
    footprint_of(trainer, trainer.config)
    assert [(p.requires_grad, p.data_ptr()) for p in trainer.model.parameters()] == before
