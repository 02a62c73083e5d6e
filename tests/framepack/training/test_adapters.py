"""LoRA: what is trained, what the file holds, and that it means the same to every reader."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from framepack.checkpoints.fp8 import from_rows
from framepack.training.adapters import Adapted, adapt, merge
from framepack.training.config import Lora
from framepack.training.settings import ConfigError
from tests.backbones import SMALL

from .made_up import made_up_config, prepared

each = pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)


def velocity(small, dit):
    torch.manual_seed(3)
    return small.run(dit, torch.randn(2, 16, 3, 4, 6))


@each
def test_a_fresh_lora_changes_nothing_and_trains_only_its_own_matrices(small):
    dit = small.model()
    before = velocity(small, dit)
    adapters = adapt(dit, Lora(rank=2), small.backbone.in_fp8, 0)
    assert torch.equal(velocity(small, dit), before)
    assert {name for name, p in dit.named_parameters() if p.requires_grad} == {
        f"{layer}.lora_{side}.weight" for layer in adapters for side in "AB"
    }


def test_ranks_and_targets_follow_their_patterns():
    dit = SMALL[0].model()
    lora = Lora(targets=r"attn\.to_[qk]$", rank=2, alpha=4, rank_pattern={r"transformer_blocks\.1\..*to_k": 3})
    adapters = adapt(dit, lora, SMALL[0].backbone.in_fp8, 0)
    assert all(name.endswith(("to_q", "to_k")) for name in adapters)
    assert adapters["transformer_blocks.1.attn.to_k"].rank == 3
    assert adapters["transformer_blocks.1.attn.to_q"].rank == 2
    assert adapters["transformer_blocks.0.attn.to_q"].scale == 2
    with pytest.raises(ConfigError, match="no_layer"):
        adapt(SMALL[0].model(), Lora(targets="no_layer"), SMALL[0].backbone.in_fp8, 0)


def test_a_frozen_float8_base_gives_the_gradients_of_its_own_values():
    torch.manual_seed(0)
    layer = nn.Linear(8, 6)
    narrow = Adapted(layer, 2, 2.0, torch.Generator().manual_seed(0), fp8=True)
    assert narrow.weight.dtype == torch.float8_e4m3fn
    same = nn.Linear(8, 6)
    same.load_state_dict({"weight": from_rows(narrow.weight, narrow.scales), "bias": layer.bias.data})
    wide = Adapted(same, 2, 2.0, torch.Generator().manual_seed(0))
    found = []
    for module in (narrow, wide):
        nn.init.ones_(module.lora_B.weight)
        x = torch.linspace(-1, 1, 16).view(2, 8).requires_grad_()
        module(x).square().sum().backward()
        found.append((x.grad, module.lora_A.weight.grad, module.lora_B.weight.grad))
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


@each
@pytest.mark.parametrize("base", ["", "fp8"])
def test_what_was_trained_is_in_the_file_and_merges_to_the_same_model(tmp_path, small, base: str):
    config = made_up_config(tmp_path, small)
    lora = Lora(rank=2, alpha=6, rank_pattern={r"to_q": 4}, base=base)
    config = replace(config, lora=lora, stage=(replace(config.stage[0], steps=3, rate=1e-2),))
    run = prepared(config)
    frozen = {name: value.clone() for name, value in run.trainer.model.named_buffers()}
    run.trainer.run()
    assert all(torch.equal(value, frozen[name]) for name, value in run.trainer.model.named_buffers())
    path = run.export(tmp_path / "lora.safetensors")
    assert {key.split(".lora_")[0].removeprefix("transformer.") for key in load_file(path)} == run.adapters.keys()
    dit = small.model()
    if base:  # the merged model starts from the values that the frozen base has
        for name, adapter in run.adapters.items():
            dit.get_submodule(name).weight.copy_(from_rows(adapter.weight, adapter.scales))
    plain = velocity(small, dit)
    assert merge(dit, path) == len(run.adapters)
    with torch.no_grad():
        trained = velocity(small, run.trainer.model.dit.eval())
    assert torch.allclose(velocity(small, dit), trained, atol=1e-4)
    assert not torch.allclose(plain, trained, atol=1e-3)


def test_the_file_states_ranks_as_peft_does(tmp_path):
    config = made_up_config(tmp_path)
    config = replace(config, lora=Lora(rank=2, alpha=6, rank_pattern={r"to_q": 4}))
    run = prepared(config)
    run.trainer.run()
    with safe_open(run.export(tmp_path / "lora.safetensors"), "pt") as file:
        stated = json.loads(file.metadata()["lora_adapter_metadata"])
    assert stated["transformer.r"] == stated["transformer.lora_alpha"] == 2
    assert set(stated["transformer.rank_pattern"].values()) == {4}
