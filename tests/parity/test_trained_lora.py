"""A LoRA file that training writes, read by diffusers through peft: the same velocity as in ours."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from framepack.models.hunyuan import BACKBONE
from framepack.training.adapters import adapt, merge, write_lora
from framepack.training.config import Lora
from tests.parity import test_hunyuan
from tests.parity.reference import Case, models


def test_diffusers_reads_a_trained_lora_as_we_do(tmp_path, monkeypatch):
    case = replace(Case.draw(1), image=True, guidance=True)
    theirs, ours = models(case)
    adapters = adapt(models(case)[1], Lora(rank=2, alpha=6, rank_pattern={"to_k": 3}), BACKBONE.in_fp8, 0)
    weights = {}
    for name, adapter in adapters.items():
        nn.init.normal_(adapter.lora_B.weight, std=0.3)
        weights |= {f"{name}.lora_{side}.weight": getattr(adapter, f"lora_{side}").weight.detach() for side in "AB"}
    write_lora(tmp_path / "lora.safetensors", adapters, weights, "transformer.")
    plain = test_hunyuan.both(case)[0]
    theirs.load_lora_adapter(str(tmp_path), prefix="transformer", weight_name="lora.safetensors")
    assert merge(ours, tmp_path / "lora.safetensors") == len(adapters)
    monkeypatch.setattr(test_hunyuan, "models", lambda case: (theirs, ours))
    torch.manual_seed(case.seed)
    got, expected = test_hunyuan.both(case)
    assert test_hunyuan.relative(got, expected) < 1e-4
    assert test_hunyuan.relative(plain, expected) > 1e-2
