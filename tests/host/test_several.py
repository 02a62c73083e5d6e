"""More than one start image: one video each, on the real host."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor

from tests.host.conftest import Graph, node_of
from tests.host.test_main_job import frames_of
from tools.client import QueueError, Workflow
from tools.host import Host

SEED = 40


@pytest.fixture
def images(host: Host, graph: Graph) -> list[str]:
    """A red star, and a blue disc that stands elsewhere."""
    disc = Image.new("RGB", (64, 64), (20, 20, 24))
    ImageDraw.Draw(disc).ellipse((34, 36, 54, 56), fill=(40, 80, 230))
    disc.save(host.base / "input" / "disc.png")
    return ["framepack_red_star.png", "disc.png"]


def videos(host: Host, graph: Graph) -> tuple[list[Tensor], list[Tensor]]:
    """The latents and the frames ``n c h w`` of every video that a run saves, in order; the codec changes frames."""
    samples = [node_of(graph.workflow, "SectionSampler"), 0]
    saving = graph.add("SaveLatent", samples=samples, filename_prefix="several")
    done = graph.queue(host)
    files = [host.base / "output" / item["filename"] for item in done.outputs[saving[0]]["latents"]]
    clips = [host.base / "output" / Path(item["subfolder"]) / item["filename"] for item in done.files]
    clips = [path for path in clips if path.suffix == ".mp4"]
    return [load_file(path)["latent_tensor"] for path in files], list(map(frames_of, clips))


def prepared(short: Workflow, seed: int = SEED) -> tuple[Graph, dict, dict]:
    """The shipped workflow, with its sampler's and its encoder's inputs."""
    graph = Graph(deepcopy(short))
    sampler = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    sampler["seed"] = seed
    return graph, sampler, graph.workflow[sampler["start_latent"][0]]["inputs"]


def alone(host: Host, short: Workflow, image: str, seed: int) -> Tensor:
    graph, _, encoder = prepared(short, seed)
    encoder["pixels"] = graph.add("LoadImage", image=image)
    (latents,), _ = videos(host, graph)
    return latents


def batch(graph: Graph, images: list[str]) -> list:
    first, second = (graph.add("LoadImage", image=image) for image in images)
    return graph.add("ImageBatch", image1=first, image2=second)


@pytest.mark.parametrize("listed", [True, False], ids=["a list", "a batch"])
def test_each_start_image_gives_the_video_that_it_gives_alone_with_the_seed_plus_its_number(
    alive: Host, short: Workflow, images: list[str], listed: bool
):
    graph, _, encoder = prepared(short)
    encoder["pixels"] = batch(graph, images)
    if listed:
        encoder["pixels"] = graph.add("RebatchImages", images=encoder["pixels"], batch_size=1)
    latents, clips = videos(alive, graph)
    assert len(latents) == len(clips) == 2
    for index, image in enumerate(images):
        assert torch.equal(latents[index], alone(alive, short, image, SEED + index))
    assert (clips[0] - clips[1]).abs().mean() > 0.02


def test_start_images_of_two_sizes_are_refused_by_their_sizes(alive: Host, short: Workflow, images: list[str]):
    graph, _, encoder = prepared(short)
    sizes = [
        graph.add("LoadImage", image=images[0]),
        graph.add("EmptyImage", width=96, height=64, batch_size=1, color=0),
    ]
    encoder["pixels"] = graph.add("StandInList", first=sizes[0], second=sizes[1])
    with pytest.raises(QueueError, match="must have one size; got latents of 8x8 and 12x8"):
        graph.queue(alive)


def test_with_a_vae_the_images_are_those_of_each_video(alive: Host, short: Workflow, images: list[str]):
    graph, sampler, encoder = prepared(short)
    encoder["pixels"] = batch(graph, images)
    sampler["vae"] = encoder["vae"]
    graph.workflow[node_of(short, "CreateVideo")]["inputs"]["images"] = [node_of(short, "SectionSampler"), 1]
    _, clips = videos(alive, graph)
    assert len(clips) == 2
    star, disc = (clip[0].mean((1, 2)) for clip in clips)  # r g b of the first frames
    assert star[0] > star[2]
    assert disc[2] > disc[0]


def test_a_repeated_start_latent_gives_a_video_for_each_with_its_own_noise(alive: Host, short: Workflow):
    graph, sampler, _ = prepared(short)
    sampler["start_latent"] = graph.add("RepeatLatentBatch", samples=sampler["start_latent"], amount=2)
    (first, second), clips = videos(alive, graph)
    assert len(clips) == 2
    assert torch.equal(first, alone(alive, short, "framepack_red_star.png", SEED))
    assert torch.equal(second, alone(alive, short, "framepack_red_star.png", SEED + 1))


def test_a_batch_of_end_images_is_refused_by_their_number(alive: Host, short: Workflow):
    graph, sampler, _ = prepared(short)
    graph.workflow[node_of(short, "EndpointPlanner")]["inputs"]["end_image"] = True
    sampler["end_latent"] = graph.add("RepeatLatentBatch", samples=sampler["start_latent"], amount=3)
    with pytest.raises(QueueError, match="end_latent must hold one image or one video; got a batch of 3"):
        graph.queue(alive)


def test_a_clip_in_place_of_a_start_image_is_refused_by_its_frames(alive: Host, short: Workflow):
    graph, sampler, _ = prepared(short)
    sampler["start_latent"] = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=9, batch_size=1)
    with pytest.raises(QueueError, match="start_latent must hold images of one latent frame each; got 3"):
        graph.queue(alive)
