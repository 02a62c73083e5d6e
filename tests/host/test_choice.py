"""History that is chosen by likeness, treated and causal, on the real host: what reruns, what the store gives back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from framepack.packing.codebook import Codebook
from tests.host.conftest import Graph, newest_latents, node_of
from tests.host.test_main_job import sections_run
from tests.host.test_store import TAKEN, graph_of
from tools.client import QueueError, Workflow, edited, run
from tools.host import Host, running

FORWARD = "td_f16k4f2k2f1k1_g9"
PLAN, SAMPLER = "EndpointPlanner", "SectionSampler"


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a store of its own, and a codebook of the built-in model."""
    base = tmp_path_factory.mktemp("choosing")
    folder = base / "models" / "framepack_codebooks"
    folder.mkdir(parents=True)
    centroids = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    Codebook(centroids=centroids, latent_format="built-in").save(folder / "ours.safetensors")
    Codebook(centroids=centroids, latent_format="wan21").save(folder / "theirs.safetensors")
    with running(base) as host:
        yield host


@pytest.fixture
def forward(short: Workflow) -> Workflow:
    values = {("PackHistory", "schedule"): FORWARD, (PLAN, "seconds"): 4.8, (SAMPLER, "steps"): 5}
    return edited(short, values | {(PLAN, "importance"): "hybrid", (PLAN, "time_weight"): 0.25})


def sampled(host: Host, workflow: Workflow, **planned: object) -> tuple[Tensor, list[int], int]:
    """The latents of a workflow, the sections whose nodes ran, and how many of them the store gave."""
    since = len(host.log_text())
    graph = graph_of(edited(workflow, {(PLAN, name): value for name, value in planned.items()}))
    done = graph.queue(host)
    return newest_latents(host, "kept"), sections_run(done), host.log_text()[since:].count(TAKEN)


def test_a_longer_plan_samples_its_new_sections_alone(host: Host, forward: Workflow):
    first = run(host.url, edited(forward, {(SAMPLER, "seed"): 11, (PLAN, "seconds"): 2.4}))
    longer = run(host.url, edited(forward, {(SAMPLER, "seed"): 11, (PLAN, "seconds"): 4.8}))
    assert sections_run(first) == [0, 1]
    assert sections_run(longer) == [2, 3]


@pytest.mark.parametrize("estimate", ["first steps", "nearest section"])
def test_an_edit_reruns_what_it_changes(keeping: Host, forward: Workflow, estimate: str):
    planned = {"estimate": estimate, "seconds": 9.6}
    one, ran, _ = sampled(keeping, forward, **planned, time_weight=0.0)
    again, reran, taken = sampled(keeping, forward, **planned, time_weight=1e-6)
    other, _, few = sampled(keeping, forward, **planned, time_weight=1000.0)
    assert ran[-7:] == reran == list(range(1, 8))  # the first section has nothing to choose, and is kept
    assert torch.equal(one, again)
    if estimate == "nearest section":  # the key is of the history that was chosen
        assert taken == 7
        assert few < 7
    else:  # and here of all that it is chosen from, and how
        assert taken == 0
    assert not torch.equal(one, other)


def test_the_first_steps_choice_changes_the_result_and_repeats(keeping: Host, forward: Workflow):
    by_time, _, _ = sampled(keeping, forward, importance="by_time", seconds=9.6)
    chosen, _, _ = sampled(keeping, forward, importance="similarity", seconds=9.6)
    assert torch.equal(by_time[:, :, :10], chosen[:, :, :10])  # nothing to choose yet
    assert not torch.equal(by_time, chosen)


def test_pinned_key_frames_and_stretches_reach_the_sections(keeping: Host, forward: Workflow):
    plain, _, _ = sampled(keeping, forward, importance="by_time")
    pinned, _, _ = sampled(keeping, forward, importance="by_time", pinned="3-9s: 0-0.2s as k2")
    assert torch.equal(plain[:, :, :10], pinned[:, :, :10])
    assert not torch.equal(plain, pinned)
    with pytest.raises(QueueError, match="anchors is not connected"):
        sampled(keeping, forward, pinned="image hero")


def with_history(workflow: Workflow, kind: str, **values: object) -> Workflow:
    graph = Graph(workflow)
    if kind == "FramePackDiscretize":
        values["model"] = [node_of(workflow, "FramePackLoadModel"), 0]
    graph.workflow[node_of(workflow, SAMPLER)]["inputs"]["history"] = graph.add(kind, **values)
    return graph.workflow


def test_repair_at_strength_zero_changes_no_bit_and_takes_the_sections_from_the_store(keeping: Host, forward: Workflow):
    plain, _, _ = sampled(keeping, forward, importance="by_time")
    off = with_history(forward, "FramePackRepair", match=0.0, noise=0.0, noise_above=0.0)
    same, _, taken = sampled(keeping, off, importance="by_time")
    on = with_history(forward, "FramePackRepair", match=1.0, noise=0.05, noise_above=0.0)
    repaired, _, _ = sampled(keeping, on, importance="by_time")
    assert torch.equal(plain, same)
    assert taken == 4
    assert torch.equal(plain[:, :, :10], repaired[:, :, :10])  # the first section sees the start alone
    assert not torch.equal(plain, repaired)


def test_a_codebook_acts_with_a_warning_and_one_of_other_latents_is_named(keeping: Host, forward: Workflow):
    plain, _, _ = sampled(keeping, forward, importance="by_time")
    ours = {"codebook_name": "ours.safetensors", "strength": 0.5}
    made, _, _ = sampled(keeping, with_history(forward, "FramePackDiscretize", **ours), importance="by_time")
    assert not torch.equal(plain, made)
    assert "was not trained with this codebook" in keeping.log_text()
    theirs = with_history(forward, "FramePackDiscretize", **ours | {"codebook_name": "theirs.safetensors"})
    with pytest.raises(QueueError, match="wan21 latents; the model has built-in latents"):
        run(keeping.url, theirs)


def test_a_schedule_with_d_needs_a_codebook(keeping: Host, forward: Workflow):
    discrete = edited(forward, {("PackHistory", "schedule"): f"{FORWARD}+d", (PLAN, "importance"): "by_time"})
    with pytest.raises(QueueError, match="history is not connected"):
        run(keeping.url, discrete)
    with pytest.raises(QueueError, match="has no codebook"):
        run(keeping.url, with_history(discrete, "FramePackRepair", match=0.5, noise=0.0, noise_above=0.0))
    book = {"codebook_name": "ours.safetensors", "strength": 0.3}
    assert run(keeping.url, with_history(discrete, "FramePackDiscretize", **book)).files


@pytest.mark.parametrize("method", ["repeat", "anchor", "causal", "noisy", "guided"])
def test_every_method_samples(keeping: Host, short: Workflow, method: str):
    graph = Graph(short)
    chosen = graph.add("FramePackMethod", method=method, noise=0.1, guidance=0.5)[0]
    graph.workflow[node_of(short, PLAN)]["inputs"]["schedule"] = [chosen, 0]
    graph.workflow[node_of(short, SAMPLER)]["inputs"] |= {"history": [chosen, 1], "history_guidance": [chosen, 2]}
    made, ran, _ = sampled(keeping, graph.workflow, seconds=2.4)
    assert ran == [0, 1]
    assert made.isfinite().all()


def test_a_codebook_is_learned_from_latents_saved_and_used(keeping: Host, forward: Workflow):
    graph = Graph(forward)
    model, start = [node_of(forward, "FramePackLoadModel"), 0], [node_of(forward, "VAEEncode"), 0]
    learned = {"model": model, "samples": start, "size": 8, "seed": 0, "filename": "learned"}
    book = graph.add("FramePackLearnCodebook", **learned)
    used = {"model": model, "codebook_name": "(none)", "strength": 0.2, "codebook": book}
    history = graph.add("FramePackDiscretize", **used)
    graph.workflow[node_of(forward, SAMPLER)]["inputs"]["history"] = history
    assert run(keeping.url, edited(graph.workflow, {(PLAN, "seconds"): 2.4})).files
    saved = Codebook.load(Path(keeping.base) / "models" / "framepack_codebooks" / "learned.safetensors")
    assert len(saved.centroids) == 8
    assert saved.latent_format == "built-in"
    graph.workflow[book[0]]["inputs"]["seed"] = 1
    with pytest.raises(QueueError, match="exists already"):
        run(keeping.url, graph.workflow)
