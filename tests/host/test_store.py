"""Finished sections survive edits, cancels, crashes and broken disks, on real hosts with stores of their own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.host.conftest import SHIPPED, Graph, newest_latents, node_of
from tests.host.test_main_job import frames_of
from tests.mounts import mounted
from tools.client import QueueError, Workflow, edited, run
from tools.host import REPO, Host, start

TAKEN, BROKEN = "is loaded from the section store", "is broken"
NUM_SECTIONS = 4
LINES = ("0-2.4s: a red star moves up", "2.4-3.6s: a red star moves down", "3.6s: a red star moves left")
Starter = Callable[..., Host]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts hosts, each over one base folder, and ends them all."""
    started: list[Host] = []

    def begin(base: Path | None = None, **environment: str) -> Host:
        own = base or tmp_path_factory.mktemp("keeping")
        (own / "custom_nodes").mkdir(exist_ok=True)
        standins = own / "custom_nodes" / "standins"
        if not standins.is_symlink():
            standins.symlink_to(Path(__file__).parent / "standins", target_is_directory=True)
        started.append(start(own, environment=environment))
        return started[-1]

    yield begin
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.stop, started))


@pytest.fixture(scope="module")
def keeping(hosts: Starter) -> Host:
    """A host whose store nothing disturbs."""
    return hosts()


def entries(host: Host) -> list[Path]:
    return sorted((host.base / "user" / "framepack_sections").glob("*.safetensors"))


def graph_of(workflow: Workflow) -> Graph:
    """The workflow up to its latents, which are saved."""
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    graph = Graph({n: deepcopy(node) for n, node in workflow.items() if node["class_type"] not in skipped})
    graph.add("SaveLatent", samples=[node_of(workflow, "SectionSampler"), 0], filename_prefix="kept")
    return graph


def latents_of(host: Host, graph: Graph) -> Tensor:
    graph.queue(host)
    return newest_latents(host, "kept")


def counted(host: Host, words: str, since: int = 0) -> int:
    return host.log_text()[since:].count(words)


@pytest.fixture
def long(shipped: Workflow) -> Workflow:
    return edited(shipped, {("EndpointPlanner", "seconds"): 4.8, ("SectionSampler", "steps"): 8})


def survives_kills(host: Host, hosts: Starter, long: Workflow, first: int, trials: int) -> None:
    """Kill a host at a random moment, start it again, queue again: nothing is lost, repeated or wrong."""
    rng, current = random.Random(first), hosts()
    whole, times = latents_of(host, graph_of(long)), []
    assert whole.shape[2] == 9 * NUM_SECTIONS + 1
    began = time.monotonic()
    latents_of(current, graph_of(edited(long, {("SectionSampler", "seed"): 999})))
    span = time.monotonic() - began
    for trial in range(trials):
        workflow = edited(long, {("SectionSampler", "seed"): 1000 + first + trial})
        before = len(entries(current))
        thread = threading.Thread(target=lambda: queued(current, workflow))  # noqa: B023 - joined below
        thread.start()
        moment = (trial + rng.random()) * NUM_SECTIONS / trials  # in sections; its fraction falls inside one
        while len(entries(current)) - before < int(moment) and thread.is_alive():
            time.sleep(0.005)
        time.sleep(moment % 1 * span / NUM_SECTIONS)
        current.kill()
        thread.join()
        there = len(entries(current)) - before
        times.append(there)
        current = hosts(current.base)
        got = latents_of(current, graph_of(workflow))
        assert counted(current, TAKEN) == there, "every finished section is taken, and no other"
        assert len(entries(current)) - before == NUM_SECTIONS
        assert counted(current, BROKEN) == 0
        assert torch.equal(got, latents_of(host, graph_of(workflow))), f"trial {trial}, killed after {there}"
    assert max(times) > min(times), f"the moments should differ: {times}"
    print(f"killed after {times} of {NUM_SECTIONS} sections")  # noqa: T201 - shown by pytest -s


def queued(host: Host, workflow: Workflow) -> None:
    with suppress(QueueError, OSError, aiohttp.ClientError):
        run(host.url, graph_of(workflow).workflow)


def test_a_host_that_is_killed_goes_on_where_it_was(host: Host, hosts: Starter, long: Workflow):
    survives_kills(host, hosts, long, 0, 2)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 120, 5))
def test_a_host_that_is_killed_twenty_times_goes_on_where_it_was(
    host: Host, hosts: Starter, long: Workflow, first: int
):
    survives_kills(host, hosts, long, first, 5)


def test_the_client_outlives_its_host_and_fetches_the_video(hosts: Starter, tmp_path: Path):
    """The command that the README shows, with the host killed and started again under it."""
    first = hosts()
    job = ["--prompt", "a red star moves up", "--seconds", "4.8", "--seed", "77", "--output", str(tmp_path)]
    command = [sys.executable, "-m", "tools.client", first.url, str(SHIPPED), *job]
    client = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(entries(first)) < 2:
        assert client.poll() is None, client.stderr.read()
        time.sleep(0.02)
    first.kill()
    there = len(entries(first))
    second = start(first.base, port=first.port)
    try:
        out, said = client.communicate(timeout=240)
        assert client.returncode == 0, said
        assert "waiting for it to come back" in said
        assert counted(second, TAKEN) == there
        (path,) = map(Path, out.split())
        assert path.parent == tmp_path
        assert frames_of(path).shape == (144, 3, 64, 64)
    finally:
        client.kill()
        second.stop()


def test_a_disk_that_is_full_and_one_that_is_read_only_leave_the_run_alone(
    hosts: Starter, host: Host, shipped: Workflow, tmp_path: Path
):
    """The disk takes one section of three."""
    workflow = edited(shipped, {("EndpointPlanner", "seconds"): 3.6, ("SectionSampler", "steps"): 2})
    other = edited(workflow, {("SectionSampler", "seed"): 8})
    with mounted(tmp_path / "disk", "size=64k") as remount:
        own = hosts(FRAMEPACK_STORE=str(tmp_path / "disk" / "sections"))
        assert torch.equal(latents_of(own, graph_of(workflow)), latents_of(host, graph_of(workflow)))
        assert counted(own, "Finished sections are not stored: No space left on device") == 1
        remount("ro")
        assert torch.equal(latents_of(own, graph_of(other)), latents_of(host, graph_of(other)))
        assert counted(own, "Finished sections are not stored: Read-only file system") == 1
        own.stop()
        again = hosts(own.base, FRAMEPACK_STORE=str(tmp_path / "disk" / "sections"))
        assert torch.equal(latents_of(again, graph_of(workflow)), latents_of(host, graph_of(workflow)))
        assert counted(again, TAKEN) == 1
        again.stop()


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """A host that was started again after runs that ended well and one that failed; and those runs."""

    host: Host
    failed: Graph
    told: Workflow
    short: Workflow


@pytest.fixture(scope="module")
def restarted(hosts: Starter) -> Restarted:
    """Its first life: a run fails in its third section, two end; then the entry of the shorter is cut in half."""
    whole = edited(json.loads(SHIPPED.read_text()), {("EndpointPlanner", "exact_length"): False})
    four = edited(whole, {("EndpointPlanner", "seconds"): 4.8, ("SectionSampler", "steps"): 2})
    failed = graph_of(four)
    failed.workflow[node_of(four, "SectionSampler")]["inputs"]["sampler"] = failed.add("StandInSampler")
    told = edited(four, {("PackHistory", "schedule"): "td_f16k4f2k2f1k1_g9", ("SectionSampler", "seed"): 31})
    told[node_of(told, "SectionSampler")]["inputs"]["clip"] = [node_of(told, "LoadFramePackTextEncoder"), 0]
    told = edited(told, {("EndpointPlanner", "prompts"): "\n".join(LINES)})
    short = edited(four, {("EndpointPlanner", "seconds"): 1.2, ("SectionSampler", "seed"): 32})
    first = hosts(FRAMEPACK_TEST_FAILS="3")
    with pytest.raises(QueueError, match="a stand-in for a full device"):
        failed.queue(first)
    latents_of(first, graph_of(told))
    others = set(entries(first))
    latents_of(first, graph_of(short))
    first.stop()
    (broken,) = set(entries(first)) - others
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    return Restarted(host=hosts(first.base), failed=failed, told=told, short=short)


def test_a_run_that_ran_out_of_memory_goes_on_where_it_was(restarted: Restarted, host: Host):
    before, since = len(entries(restarted.host)), len(restarted.host.log_text())
    assert torch.equal(latents_of(restarted.host, restarted.failed), latents_of(host, restarted.failed))
    assert counted(restarted.host, TAKEN, since) == 2
    assert len(entries(restarted.host)) == before + 2


def test_after_a_restart_an_edit_reruns_what_depends_on_it(restarted: Restarted, host: Host):
    """Four sections, prompt of the third edited: the first two are taken, the others sampled."""
    lines = [LINES[0], LINES[1] + " slowly", LINES[2]]
    changed = edited(restarted.told, {("EndpointPlanner", "prompts"): "\n".join(lines)})
    before, since = len(entries(restarted.host)), len(restarted.host.log_text())
    assert torch.equal(latents_of(restarted.host, graph_of(changed)), latents_of(host, graph_of(changed)))
    assert counted(restarted.host, TAKEN, since) == 2
    assert len(entries(restarted.host)) == before + 2


def test_an_entry_that_is_cut_in_half_is_made_again(restarted: Restarted, host: Host):
    before, since = len(entries(restarted.host)), len(restarted.host.log_text())
    graph = graph_of(restarted.short)
    assert torch.equal(latents_of(restarted.host, graph), latents_of(host, graph))
    assert counted(restarted.host, BROKEN, since) == 1
    assert len(entries(restarted.host)) == before


def test_a_store_that_cannot_be_written_is_said_and_the_run_goes_on(hosts: Starter, host: Host, short: Workflow):
    own = hosts(FRAMEPACK_STORE="/dev/null/sections")
    assert torch.equal(latents_of(own, graph_of(short)), latents_of(host, graph_of(short)))
    assert counted(own, "Finished sections are not stored: ") == 1
    assert counted(own, "The run continues") == 1


def test_two_hosts_share_a_store(hosts: Starter, host: Host, long: Workflow, tmp_path: Path):
    pair = [hosts(FRAMEPACK_STORE=str(tmp_path)) for _ in range(2)]
    threads = [threading.Thread(target=queued, args=(own, long)) for own in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = latents_of(host, graph_of(long))
    for own in pair:
        assert torch.equal(newest_latents(own, "kept"), expected)
        assert counted(own, BROKEN) == 0
    assert len(list(tmp_path.glob("*.safetensors"))) == NUM_SECTIONS


def patched(workflow: Workflow, *kinds: tuple[str, dict]) -> Graph:
    """The workflow with stock nodes between its model and SectionSampler."""
    graph = Graph(graph_of(workflow).workflow)
    sampler = graph.workflow[node_of(workflow, "SectionSampler")]["inputs"]
    for kind, values in kinds:
        sampler["model"] = graph.add(kind, model=sampler["model"], **values)
    return graph


SHIFT = ("ModelSamplingSD3", {"shift": 3.0})
CACHE = ("FramePackStepCache", {"threshold": 0.05})
COMPILED = ("StandInCompiled", {})
EASY = ("EasyCache", {"reuse_threshold": 0.01, "start_percent": 0.1, "end_percent": 0.9, "verbose": False})
RESCALE = ("RescaleCFG", {"multiplier": 0.7})


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((SHIFT,), marks=pytest.mark.slow),
        pytest.param((CACHE,), marks=pytest.mark.slow),
        (SHIFT, CACHE),
        (COMPILED,),
    ],
    ids=["shift", "step cache", "both", "compiled"],
)
def test_known_patches_are_part_of_the_key(keeping: Host, short: Workflow, kinds):
    latents_of(keeping, graph_of(short))
    before, taken = len(entries(keeping)), counted(keeping, TAKEN)
    latents_of(keeping, patched(short, *kinds))
    assert len(entries(keeping)) == before + 1
    assert counted(keeping, TAKEN) == taken


def lora_in(host: Host, prefix: str = "") -> str:
    """The name of a small LoRA among the host's files, its layer's name after a prefix."""
    folder = host.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    layer, name = f"{prefix}transformer_blocks.0.attn.to_q", f"{prefix}lora.safetensors"
    torch.manual_seed(0)
    lora = {f"{layer}.lora_A.weight": torch.randn(4, 128), f"{layer}.lora_B.weight": torch.randn(128, 4)}
    save_file(lora, folder / name)
    return name


def test_lora_hooks_on_the_prompt_are_part_of_the_key(keeping: Host, short: Workflow):
    name, before, made = lora_in(keeping, "diffusion_model."), len(entries(keeping)), []
    for strength in (0.5, 1.0):
        graph = Graph(graph_of(short).workflow)
        sampler = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
        hooks = graph.add("CreateHookLoraModelOnly", lora_name=name, strength_model=strength)
        values = {"cond_NEW": sampler["positive"], "strength": 1.0, "set_cond_area": "default"}
        sampler["positive"] = graph.add("ConditioningSetProperties", hooks=hooks, **values)
        made.append(latents_of(keeping, graph))
    assert not torch.equal(*made)
    assert len(entries(keeping)) == before + 2


def test_lora_strengths_are_part_of_the_key(keeping: Host, short: Workflow):
    name, before = lora_in(keeping), len(entries(keeping))
    made = [
        latents_of(keeping, patched(short, ("FramePackLoraLoader", {"lora_name": name, "strength": s})))
        for s in (0.5, 1.0)
    ]
    assert not torch.equal(*made)
    assert len(entries(keeping)) == before + 2


@pytest.mark.parametrize(
    ("kinds", "words"),
    [((EASY,), "the model has the option easycache"), ((RESCALE,), "the model has the option sampler_cfg_function")],
    ids=["EasyCache", "RescaleCFG"],
)
def test_what_cannot_be_keyed_is_not_stored_and_said(keeping: Host, short: Workflow, kinds, words: str):
    before = len(entries(keeping))
    latents_of(keeping, patched(short, *kinds))
    assert len(entries(keeping)) == before
    assert counted(keeping, f"Finished sections are not stored: {words}") == 1


def test_a_merge_is_not_stored_and_said(keeping: Host, short: Workflow):
    graph = Graph(graph_of(short).workflow)
    sampler = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    model = sampler["model"]
    sampler["model"] = graph.add("ModelMergeSimple", model1=model, model2=model, ratio=0.5)
    before = len(entries(keeping))
    latents_of(keeping, graph)
    assert len(entries(keeping)) == before
    assert counted(keeping, "is no LoRA's (a merge, or another pack's)") == 1


def test_without_keep_nothing_is_stored(keeping: Host, short: Workflow):
    before = len(entries(keeping))
    values = {("SectionSampler", "keep"): False, ("SectionSampler", "seed"): 4321}
    latents_of(keeping, graph_of(edited(short, values)))
    assert len(entries(keeping)) == before


def test_a_section_that_is_not_finite_is_an_error_and_is_not_stored(keeping: Host, short: Workflow):
    graph = graph_of(short)
    sampler = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    sampler["sampler"] = graph.add("StandInSampler", to_nan=True)
    before = len(entries(keeping))
    with pytest.raises(QueueError, match=r"Section 1 is not finite.*weight_dtype.*sigmas.*LoRA.*Try"):
        graph.queue(keeping)
    assert len(entries(keeping)) == before
