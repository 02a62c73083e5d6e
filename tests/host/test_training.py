"""A LoRA trained by the node in a real host: what stock nodes get, what is shown, that it goes on after a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from framepack.shapes.lesson import write_clips
from framepack.training.reports import read_log
from tests.host.conftest import Graph
from tests.host.test_lora import latents, relative
from tests.host.test_main_job import post
from tools.client import QueueError, run
from tools.host import Host

STEPS = 6


@pytest.fixture(scope="module")
def clips(host: Host) -> Iterator[str]:
    """Three clips in the host's input folder, and one file that is none."""
    folder = host.base / "input" / "lesson"
    write_clips(folder, 3)
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "broken.txt").write_text("a red star", encoding="utf-8")
    yield "lesson"


def training(graph: Graph, folder: str, name: str, **values) -> list:
    """The training node on the built-in model; its first output."""
    model = graph.add("FramePackLoadModel", model_name="framepack_shapes_dit.safetensors", weight_dtype="fp32")
    vae = graph.add("VAELoader", vae_name="framepack_shapes_vae.safetensors")
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    given = {"folder": folder, "name": name, "size": 64, "fps": 30.0, "longest": 1.3, "steps": STEPS, "batch": 1}
    given |= {"learning_rate": 1e-3, "rank": 4, "optimizer": "adamw", "base_weights": "as loaded"}
    given |= {"first_frames": 0.5, "seed": 0, "sample_every": 0, "sample_prompts": "", "sample_length": 10}
    return graph.add("FramePackTrainLora", model=model, vae=vae, clip=clip, **given | values)


def test_a_lora_trained_on_the_graph_is_shown_saved_and_used(alive: Host, graph: Graph, clips: str):
    node, _ = trained = training(graph, clips, "shown", sample_every=STEPS, sample_prompts="an orange ring\na red star")
    graph.add("SaveLoRA", lora=[node, 1], prefix="loras/stock", steps=[node, 3])
    graph.add("LossGraphNode", loss=[node, 2], filename_prefix="losses")
    path = graph.add("PreviewAny", source=[node, 4])
    ours, _ = latents(alive, graph, trained, "with_ours")
    done = graph.queue(alive)  # all is kept: what its nodes say is in their history
    file = Path(done.outputs[path[0]]["text"][0])
    assert file.parent == alive.base / "output" / "loras"
    (picture,) = done.outputs[node]["images"]
    assert Image.open(alive.base / "temp" / picture["filename"]).size[0] == 960
    said = done.outputs[node]["text"][0]
    assert "layers changed" in said
    assert "left out: broken.mp4" in said
    runs = alive.base / "output" / "framepack_training" / "shown"
    assert sorted(p.name for p in runs.glob("*/samples/*")) == ["000000006_0.mp4", "000000006_1.mp4"]
    stock = next((alive.base / "output" / "loras").glob("stock_6_steps_*"))
    held, written = load_file(file), load_file(stock)
    assert held.keys() == written.keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in held.items())

    other = Graph()
    plain = other.add("FramePackLoadModel", model_name="framepack_shapes_dit.safetensors", weight_dtype="fp32")
    by_stock = other.add("LoraLoaderModelOnly", model=plain, lora_name=file.name, strength_model=1.0)
    theirs, _ = latents(alive, other, by_stock, "with_stock")
    without, _ = latents(alive, other, plain, "without")
    assert relative(theirs, ours) < 1e-4
    assert relative(without, ours) > 1e-4


def test_a_cancelled_training_goes_on_where_it_was(alive: Host, graph: Graph, clips: str):
    node, _ = training(graph, clips, "cancelled", steps=16)
    cancelled: list[float] = []

    def cancel(progress) -> None:
        if progress.node == node and progress.total == 16 and progress.value >= 3 and not cancelled:
            cancelled.append(progress.value)
            asyncio.get_running_loop().run_in_executor(None, post, alive, "/interrupt")

    with pytest.raises(QueueError, match="cancelled"):
        run(alive.url, graph.workflow, cancel)
    (place,) = (alive.base / "output" / "framepack_training" / "cancelled").iterdir()
    before = read_log(place / "log.jsonl")
    assert 3 <= len(before) < 16
    run(alive.url, graph.workflow)
    after = read_log(place / "log.jsonl")
    assert after[: len(before)] == before
    assert len(after) == 16


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"folder": "nowhere"}, "folder must be a folder of videos.*nowhere"),
        ({"name": "../lora"}, "name must be letters.*lora"),
        ({"longest": 0.5, "first_frames": 0.0}, "needs clips of 10 latent frames or more"),
    ],
    ids=["no folder", "a name that is a path", "clips too short"],
)
def test_what_cannot_be_trained_is_named(alive: Host, graph: Graph, clips: str, values, words: str):
    training(graph, **{"folder": clips, "name": "wrong", **values})
    with pytest.raises(QueueError, match=rf"FramePackTrainLora(?s:.*){words}"):
        graph.queue(alive)
