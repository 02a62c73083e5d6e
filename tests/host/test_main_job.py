"""The main job on a real ComfyUI: the shipped workflow makes its video, and sections are kept."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import psutil
import pytest
import torch
from PIL import Image

from framepack.shapes import shape_measures as measure
from framepack.shapes.world import COLOURS
from tests.host.conftest import SHIPPED, Graph, files_of, node_of
from tools.client import QueueError, Workflow, edited, run
from tools.host import REPO, Host

SECTION = re.compile(r"section_(\d+)$")


def frames_of(path: Path) -> torch.Tensor:
    """A video's frames, ``t 3 h w`` in [0, 1]."""
    with av.open(str(path)) as file:
        frames = [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
    return torch.stack(frames).permute(0, 3, 1, 2).float() / 255


def sections_run(done) -> list[int]:
    """The sections that were sampled, by their first number."""
    return [int(match[1]) for node in done.ran if (match := SECTION.search(node))]


def saved(host: Host, done) -> Path:
    (item,) = [i for out in done.outputs.values() for i in out.get("images", []) if i["type"] == "output"]
    return host.base / "output" / item["subfolder"] / item["filename"]


def test_the_shipped_workflow_makes_its_video(alive: Host):
    steps = []
    done = run(alive.url, json.loads(SHIPPED.read_text()), lambda p: steps.append((p.node, p.value)))
    frames = frames_of(saved(alive, done))
    assert frames.shape == (150, 3, 64, 64)
    seen = measure.track(frames)
    true = measure.track(frames[:1])
    assert measure.nearest_colour(true.colour, COLOURS)[0] == "red"
    assert measure.start_kept(seen, true, COLOURS).double().mean() >= 0.95  # every frame but seven
    moved = seen.centre[:, 0] - seen.centre[0, 0]  # to the right, at 0.15 pixels a frame as in training
    assert moved[40] > 3
    assert 15 < moved[140] < 27
    assert sections_run(done) == [0, 1, 2, 3, 4]
    assert max(value for node, value in steps if SECTION.search(node)) == 125  # 25 steps in each of five
    assert alive.peak_memory < 2.5e9


def test_queueing_again_runs_nothing(alive: Host, short: Workflow):
    run(alive.url, short)
    again = run(alive.url, short)
    assert not sections_run(again)


def test_a_new_seed_runs_every_section_and_a_new_length_of_decode_none(alive: Host, short: Workflow):
    longer = edited(short, {("EndpointPlanner", "seconds"): 2.4})
    assert sections_run(run(alive.url, edited(longer, {("SectionSampler", "seed"): 5}))) == [0, 1]
    assert sections_run(run(alive.url, edited(longer, {("SectionSampler", "seed"): 6}))) == [0, 1]
    other = edited(longer, {("SectionSampler", "seed"): 6, ("CreateVideo", "fps"): 24.0})
    assert not sections_run(run(alive.url, other))


def test_appending_to_a_forward_plan_runs_only_the_new_section(alive: Host, short: Workflow):
    forward = edited(short, {("PackHistory", "schedule"): "f1k1_x_f16k4f2k2f1k1_g9", ("SectionSampler", "seed"): 11})
    run(alive.url, edited(forward, {("EndpointPlanner", "seconds"): 2.4}))
    longer = run(alive.url, edited(forward, {("EndpointPlanner", "seconds"): 3.6}))
    assert sections_run(longer) == [2]


def test_a_cancelled_run_goes_on_where_it_was(alive: Host, short: Workflow):
    workflow = edited(
        short, {("EndpointPlanner", "seconds"): 4.8, ("SectionSampler", "seed"): 21, ("SectionSampler", "steps"): 30}
    )
    cancelled: list[int] = []

    def cancel_in_third(progress) -> None:
        if progress.node.endswith("section_2") and progress.value >= 2 * 30 + 2 and not cancelled:  # of the whole plan
            cancelled.append(progress.value)
            asyncio.get_running_loop().run_in_executor(None, post, alive, "/interrupt")

    with pytest.raises(QueueError, match="cancelled"):
        run(alive.url, workflow, cancel_in_third)
    assert sections_run(run(alive.url, workflow)) == [2, 3]


def post(host: Host, path: str) -> None:
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(host.url + path, data=b"{}", method="POST"), timeout=10).read()


def test_text_alone_makes_a_video(alive: Host, short: Workflow):
    text = edited(short, {("EndpointPlanner", "start_image"): False, ("SectionSampler", "steps"): 8})
    sampler = text[node_of(text, "SectionSampler")]["inputs"]
    del sampler["start_latent"]
    done = run(alive.url, text)
    assert frames_of(saved(alive, done)).shape == (37, 3, 64, 64)


@pytest.mark.parametrize(
    "schedule", ["td_f16k4f2k2f1k1_g9_x_f1k1", "td_f16k4f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2f16k4_tc"]
)
def test_every_order_runs(alive: Host, short: Workflow, schedule: str):
    values = {("PackHistory", "schedule"): schedule, ("EndpointPlanner", "seconds"): 3.6}
    done = run(alive.url, edited(short, values))
    assert frames_of(saved(alive, done)).shape[0] == 109


def stock_graph(**model_nodes: str) -> tuple[Graph, list]:
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name="framepack_shapes_dit.safetensors")
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    text = graph.add("CLIPTextEncode", clip=clip, text="a blue circle moves slowly to the left")
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    return graph, [model, text, latent]


@pytest.mark.parametrize("patch", ["none", "ModelSamplingSD3", "EasyCache", "LazyCache"])
def test_stock_samplers_and_model_patches_work_on_the_model(alive: Host, patch: str):
    graph, (model, text, latent) = stock_graph()
    if patch == "ModelSamplingSD3":
        model = graph.add(patch, model=model, shift=3.0)
    if patch.endswith("Cache"):
        cache = {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}
        model = graph.add(patch, model=model, **cache)
    names = {"seed": 3, "steps": 20, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    samples = graph.add("KSampler", model=model, positive=text, negative=text, latent_image=latent, **names)
    graph.add("SaveLatent", samples=samples, filename_prefix=f"stock_{patch}")
    before = len(alive.log_text())
    graph.queue(alive)
    if patch.endswith("Cache"):
        assert re.search(rf"{patch} - skipped [1-9]", alive.log_text()[before:])


def test_the_model_can_be_saved_and_merged_by_stock_nodes(alive: Host):
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name="framepack_shapes_dit.safetensors")
    merged = graph.add("ModelMergeSimple", model1=model, model2=model, ratio=0.5)
    graph.add("ModelSave", model=merged, filename_prefix="merged")
    graph.queue(alive)
    assert files_of(alive, "merged", ".safetensors")


def demo(output: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.demo", "--seconds", "1.2", "--output", str(output), *arguments],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_the_demo_prints_its_video_and_never_overwrites_one(tmp_path: Path):
    paths = []
    for _ in range(2):
        out, err = demo(tmp_path).communicate(timeout=240)
        assert "section 0" in err
        paths.append(Path(out.strip().splitlines()[-1]))
    assert paths[0] != paths[1]
    assert [frames_of(p).shape[0] for p in paths] == [36, 36]
    assert not children_of_pack()


def test_an_image_of_another_size_is_fitted(alive: Host, short: Workflow):
    Image.new("RGB", (300, 200), (200, 30, 30)).save(alive.base / "input" / "large.png")
    done = run(alive.url, edited(short, {("LoadImage", "image"): "large.png"}))
    (path,) = [alive.base / "output" / item["subfolder"] / item["filename"] for item in done.files]
    assert frames_of(path).shape[1:] == (3, 64, 64)


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"text", "is not a picture")])
def test_what_is_no_image_is_named_before_a_host_is_started(tmp_path: Path, content: bytes | None, words: str):
    image = tmp_path / "image.png"
    if content:
        image.write_bytes(content)
    _, err = demo(tmp_path, "--image", str(image)).communicate(timeout=60)
    assert f"{image} {words}" in err
    assert "runs at" not in err


def test_the_demo_stops_its_host_on_ctrl_c(tmp_path: Path):
    process = demo(tmp_path, "--seconds", "60")
    for line in process.stderr:
        if "runs at" in line:
            break
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    _, left = psutil.wait_procs(children_of_pack(), timeout=10)  # a fork of the host may be about to end
    assert not left


def children_of_pack() -> list[psutil.Process]:
    """Hosts over the demo's base folder that still run."""
    base = str(REPO / ".cache" / "demo")
    return [p for p in psutil.process_iter(["cmdline"]) if base in (p.info["cmdline"] or [])]
