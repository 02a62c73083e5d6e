"""A real process is killed at random moments, again and again, and still ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .made_up import INVERTED, made_up_config

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[3]


def start(folder: Path, name: str) -> tuple[subprocess.Popen, Path]:
    config, out = made_up_config(folder), folder / name
    text = f"""
model = {{ path = "{config.model.path}", compute = "bf16", weights = "bf16", device = "cpu" }}
data = {{ cache = "{config.data.cache}" }}
run = {{ out = "{out}", batch = 2, save_every = 3, ema = 0.9 }}
[[stage]]
steps = 60
rate = 1e-3
[[stage.mixture]]
schedule = "{INVERTED}"
"""
    (folder / f"{name}.toml").write_text(text)
    command = [sys.executable, "-m", "framepack", "train", str(folder / f"{name}.toml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True), out


def steps_in(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    process, whole = start(tmp_path, "whole")
    assert process.wait() == 0
    rng = random.Random(0)
    for _ in range(4):
        process, out = start(tmp_path, "killed")
        goal = steps_in(out) + rng.randint(4, 15)
        while steps_in(out) < goal and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.wait()
    process, out = start(tmp_path, "killed")
    assert process.wait() == 0
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, out))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert (whole / "log.jsonl").read_bytes() == (out / "log.jsonl").read_bytes()


def test_ctrl_c_saves_the_step_that_is_under_way(tmp_path):
    process, out = start(tmp_path, "stopped")
    while steps_in(out) < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 0
    done = steps_in(out)
    assert f"stopped after step {done} of 60" in said
    assert (out / "states" / f"{done:09d}").is_dir()
