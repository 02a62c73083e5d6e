"""Several processes: the same losses as one, states of all of them, and one file at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from framepack.training.parallel import ShardedAdafactor, whole
from framepack.training.reports import read_log

from .made_up import INVERTED, made_up_config

REPO = Path(__file__).parents[3]


def test_adafactor_of_sharded_weights_is_torchs():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        torch.manual_seed(0)
        values = [torch.randn(6, 5), torch.randn(7), torch.randn(4, 3, 1, 2, 2), torch.zeros(3, 3)]
        plain = [nn.Parameter(value.clone()) for value in values]
        sharded = [nn.Parameter(distribute_tensor(value.clone(), mesh, [Shard(0)])) for value in values]
        settings = {"lr": 0.3, "weight_decay": 0.1}
        ours, theirs = ShardedAdafactor(sharded, **settings), torch.optim.Adafactor(plain, **settings)
        for _ in range(5):
            for one, two in zip(plain, sharded, strict=True):
                one.grad = torch.randn_like(one)
                two.grad = distribute_tensor(one.grad.clone(), mesh, [Shard(0)])
            ours.step()
            theirs.step()
        for one, two in zip(plain, sharded, strict=True):
            assert torch.allclose(one, whole(two), atol=1e-6)
            for key, state in theirs.state[one].items():
                assert torch.allclose(state, whole(ours.state[two][key]), atol=1e-6), key
    finally:
        dist.destroy_process_group()


def train(folder: Path, name: str, processes: int, steps: int = 8, **run: object) -> tuple[Path, str]:
    """Run a small training in so many processes; its folder, and what it printed."""
    config, out = made_up_config(folder), folder / name
    settings = "".join(f", {key} = {value}" for key, value in run.items())
    text = f"""
model = {{ path = "{config.model.path}", compute = "fp32", device = "cpu" }}
data = {{ cache = "{config.data.cache}" }}
run = {{ out = "{out}", batch = 4, save_every = 4, ema = 0.9{settings} }}
"""
    for optimizer in ("adafactor", "adamw", "muon"):
        text += f"""[[stage]]
steps = {steps}
rate = 1e-3
optimizer = "{optimizer}"
[[stage.mixture]]
schedule = "{INVERTED}"
"""
    (folder / f"{name}.toml").write_text(text)
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "framepack", "train", str(folder / f"{name}.toml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": "29517"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    return out, done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_write_the_same_file(tmp_path):
    (one, _), (two, said) = (train(tmp_path, f"by{n}", n) for n in (1, 2))
    shared, told = train(tmp_path, "shared", 2, sequence=2)  # both processes hold tokens of each clip
    losses = [[record.loss for record in read_log(out / "log.jsonl")] for out in (one, two, shared)]
    assert len(losses[0]) == len(losses[1]) == len(losses[2]) == 24, said + told
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)
    weights = [load_file(out / "model.safetensors") for out in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        assert torch.allclose(value.float(), weights[1][key].float(), atol=2e-2, rtol=2e-2), key
    states = sorted(path.name for path in (two / "states").iterdir())
    assert states == ["000000020", "000000024"]
    _, said = train(tmp_path, "by2", 1)
    assert "saved by 2 processes" in said
