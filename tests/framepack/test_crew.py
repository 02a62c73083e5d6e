"""A crew of processes gives a program that is none of them the velocities of one, and tells it when one has died."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from framepack.errors import CheckpointError, FramePackError
from framepack.packing.history import ContextGroup
from framepack.parallel.crew import Crew, CrewSpec, ParallelError
from framepack.shapes import builtin
from framepack.shapes.generate import Builtin
from framepack.units import Kernel

SPEC = CrewSpec(model=str(builtin.DIT), processes=2)


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    started = Crew.started(SPEC)
    yield started
    started.end()


def history(frames: int) -> list[ContextGroup]:
    latents = torch.randn(1, 16, frames, 8, 8, generator=torch.Generator().manual_seed(frames))
    return [ContextGroup(kernel=Kernel.short(1), latents=latents, positions=tuple(range(frames)))]


def given(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    words = Builtin.load().encoded(["a red star moves up"])
    x = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, torch.tensor([700.0]), words["context"], {"y": words["y"]}


@torch.no_grad()
def test_a_crew_has_the_velocities_of_one_process(crew: Crew):
    model = Builtin.load().dit
    for step, past in enumerate((history(1), history(2), history(1), [])):
        x, timestep, context, inputs = given(step)
        one = model(x, timestep, context, **inputs, positions=range(3, 6), history=past)
        many = crew.velocity(x, timestep, context, inputs, range(3, 6), past, [700.0])
        assert torch.allclose(one, many, rtol=0, atol=1e-5 * float(one.abs().max()))


@pytest.mark.slow
def test_a_fault_in_a_process_is_told_and_the_next_crew_works():
    crew = Crew.started(SPEC)
    x, timestep, context, inputs = given()
    with pytest.raises(ParallelError, match="positions"):
        crew.velocity(x, timestep, context, inputs, range(9), [])
    assert not crew.alive


def test_a_process_that_dies_is_named_with_the_remedy(crew: Crew):
    crew.processes[1].kill()
    with pytest.raises(ParallelError, match=r"Process 2 of 2 ended.*queue again"):
        crew.velocity(*given(), range(3), [])
    assert not crew.alive


def test_what_cannot_be_shared_is_rejected_before_a_process_starts(tmp_path):
    with pytest.raises(FramePackError, match="heads; got 5"):
        Crew.started(replace(SPEC, processes=5))
    with pytest.raises(CheckpointError):
        Crew.started(replace(SPEC, model=str(tmp_path / "gone.safetensors")))
