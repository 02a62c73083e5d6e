"""Several processes share a section's tokens: the results are those of one, in a fraction of the memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framepack.errors import FramePackError
from framepack.nn.attention import attention_named
from framepack.nn.ranks import Ranks, Shares
from tests.backbones import SMALL

REPO = Path(__file__).parents[2]


def torchrun(processes: int, *command: str) -> str:
    """What process 0 prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *command], cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_that_share_a_section_give_what_one_gives(processes: int):
    found: dict[str, Any] = json.loads(torchrun(processes, "tests/framepack/ranks.py"))
    for small in SMALL:
        assert len(found[small.name]) >= 12
        assert max(found[small.name].values()) < 1e-5, found[small.name]
    assert found["mesh"] < 1e-5
    assert f"got {processes}" in found["heads"]


@pytest.mark.slow
def test_two_processes_need_about_half_the_memory_each():
    assert 0.3 < json.loads(torchrun(2, "tests/framepack/ranks.py", "memory"))["memory"] < 0.6


def test_rows_are_shared_out_evenly_and_without_a_rest():
    for num in range(12):
        for world in (1, 2, 3, 5):
            spans = [Ranks(rank=rank, world=world).span(num) for rank in range(world)]
            assert [i for span in spans for i in range(span.start, span.stop)] == list(range(num))
            counts = Shares(ranks=Ranks(world=world), segments=(num,), read=num).keys
            assert max(counts) - min(counts) <= 1


def test_heads_that_processes_do_not_divide_are_rejected_with_what_fits():
    Ranks(world=8).check_heads(24)
    with pytest.raises(FramePackError, match=r"24 attention heads; got 5.*1, 2, 3, 4, 6 or 8"):
        Ranks(world=5).check_heads(24)


def test_ulysses_without_processes_says_how_to_start_them():
    with pytest.raises(FramePackError, match="torchrun"):
        attention_named("ulysses")
