"""A VIDEO that is decoded while it is saved: the same frames, in memory that does not grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from benchmarks.peak import Peak
from tests.host.conftest import Graph, files_of, pictures_of
from tools.client import QueueError
from tools.host import Host, running

VAE = "framepack_shapes_vae.safetensors"


def noise(graph: Graph, num_lat_frames: int) -> list[Any]:
    """Random latents ``1 16 t 6 6``."""
    empty = {"width": 48, "height": 48, "length": 4 * num_lat_frames - 3, "batch_size": 1}
    return graph.add("StandInNoise", samples=graph.add("EmptyHunyuanLatentVideo", **empty))


def test_a_streamed_video_has_the_frames_of_one_that_is_decoded_at_once(alive: Host):
    graph = Graph()
    samples, vae = noise(graph, 10), graph.add("VAELoader", vae_name=VAE)
    video = graph.add("FramePackVideo", samples=samples, vae=vae, fps=30.0)
    graph.add("SaveVideo", video=video, filename_prefix="streamed", format="auto", codec="auto")
    ways = {
        "streamed": graph.add("GetVideoComponents", video=video),
        "pieces": graph.add("FramePackVAEDecode", samples=samples, vae=vae),
        "whole": graph.add("VAEDecode", samples=samples, vae=vae),
    }
    for name, images in ways.items():
        graph.add("SaveImage", images=images, filename_prefix=name)
    graph.queue(alive)
    pictures = [pictures_of(alive, name) for name in ways]
    assert len(pictures[0]) == 37
    assert np.array_equal(pictures[0], pictures[1])
    apart = np.abs(pictures[1].astype(int) - pictures[2])  # a value at the border of two levels may fall either way
    assert apart.max() <= 1
    assert apart.mean() < 1e-3
    (film,) = files_of(alive, "streamed", ".mp4")
    with av.open(str(film)) as file:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert len(shown) == 37
    assert np.abs(shown.astype(int) - pictures[0]).mean() < 12  # what the codec loses of noise


def containers(host: Host) -> list[str]:
    """The containers that this host's SaveVideo offers."""
    kind, options = host.get("/object_info/SaveVideo")["SaveVideo"]["input"]["required"]["format"]
    found = [o["key"] for o in options["options"]] if kind.startswith("COMFY_DYNAMIC") else options.get("options", kind)
    assert {"auto", "mp4"} <= set(found)
    return found


def film(host: Host, prefix: str) -> np.ndarray:
    """The frames of the file of a prefix, ``n h w c``; whatever its container."""
    (path,) = (p for p in files_of(host, prefix, ".*") if p.suffix != ".png")
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def encoded(graph: Graph, num_pix_frames: int) -> tuple[list[Any], list[Any]]:
    """Latents of a still image and the VAE; the codecs lose little of it."""
    image, vae = graph.add("LoadImage", image="framepack_red_star.png"), graph.add("VAELoader", vae_name=VAE)
    scaled = graph.add("ImageScale", image=image, upscale_method="area", crop="center", width=64, height=64)
    frames = graph.add("RepeatImageBatch", image=scaled, amount=num_pix_frames)
    return graph.add("VAEEncode", pixels=frames, vae=vae), vae


def test_every_container_that_the_host_offers_holds_the_frames(alive: Host):
    graph, offered = Graph(), containers(alive)
    samples, vae = encoded(graph, 13)
    video = graph.add("FramePackVideo", samples=samples, vae=vae, fps=30.0)
    for name in offered:
        own = {"codec": "auto", "format.codec": "auto"}
        graph.add("SaveVideo", video=video, filename_prefix=f"in_{name}", format=name, **own)
    graph.add("SaveImage", images=graph.add("GetVideoComponents", video=video), filename_prefix="in_pictures")
    graph.queue(alive)
    pictures = pictures_of(alive, "in_pictures")
    for name in offered:
        frames = film(alive, f"in_{name}")
        assert frames.shape == pictures.shape, name
        assert np.abs(frames.astype(int) - pictures).mean() < 4, name
    assert not list((alive.base / "output").glob("*.part*"))


def test_a_slice_of_a_video_has_the_frames_of_that_time(alive: Host):
    if "Video Slice" not in alive.get("/object_info"):
        pytest.skip("this host slices no videos")
    graph = Graph()
    video = graph.add("FramePackVideo", samples=noise(graph, 10), vae=graph.add("VAELoader", vae_name=VAE), fps=30.0)
    cut = graph.add("Video Slice", video=video, start_time=0.5, duration=0.4, strict_duration=True)
    late = graph.add("Video Slice", video=cut, start_time=-0.1, duration=0.0, strict_duration=False)
    graph.add(
        "SaveVideo", video=late, filename_prefix="late", format="auto", **{"codec": "auto", "format.codec": "auto"}
    )
    for name, images in (("whole_video", video), ("cut", cut), ("late", late)):
        graph.add("SaveImage", images=graph.add("GetVideoComponents", video=images), filename_prefix=name)
    graph.queue(alive)
    whole, cut, late = (pictures_of(alive, name) for name in ("whole_video", "cut", "late"))
    assert np.array_equal(cut, whole[15:27])
    assert np.array_equal(late, whole[24:27])
    assert len(film(alive, "late")) == 3


@pytest.mark.parametrize("num", [1, 2, 3, 6])
def test_a_newer_hosts_decoder_gives_the_same_frames(alive: Host, num: int):
    graph = Graph()
    samples, vae = noise(graph, num), graph.add("VAELoader", vae_name=VAE)
    newer = graph.add("FramePackVAEDecode", samples=samples, vae=graph.add("StandInNewerVAE", vae=vae))
    known = graph.add("VAEDecode", samples=samples, vae=vae)
    for name, images in (("newer", newer), ("known", known)):
        graph.add("SaveImage", images=images, filename_prefix=f"{name}{num}")
    graph.queue(alive)
    newer, known = (pictures_of(alive, f"{name}{num}") for name in ("newer", "known"))
    assert len(newer) == 4 * num - 3
    assert np.abs(newer.astype(int) - known).max() <= 1


def test_hunyuanvideos_vae_is_decoded_by_tiles_each_by_the_host(alive: Host):
    graph = Graph()
    samples, vae = noise(graph, 12), graph.add("StandInVAE")
    first = graph.add("LatentCut", samples=samples, dim="t", index=0, amount=5)
    video = graph.add("FramePackVideo", samples=samples, vae=vae, fps=30.0, grid="5 every 3")
    graph.add("SaveVideo", video=video, filename_prefix="tiles", format="auto", codec="auto")
    ways = {
        "tiles": graph.add("GetVideoComponents", video=video),
        "image": graph.add("FramePackVAEDecode", samples=samples, vae=vae, grid="5 every 3"),
        "tile": graph.add("VAEDecode", samples=first, vae=vae),
    }
    for name, images in ways.items():
        graph.add("SaveImage", images=images, filename_prefix=name)
    graph.queue(alive)
    pictures = {name: pictures_of(alive, name) for name in ways}
    assert len(pictures["image"]) == 45
    assert np.array_equal(pictures["tiles"], pictures["image"])
    assert np.array_equal(pictures["image"][:13], pictures["tile"][:13])  # before the first overlap
    assert len(np.unique(pictures["image"])) > 100  # pictures, not one colour
    (film,) = files_of(alive, "tiles", ".mp4")
    with av.open(str(film)) as file:
        assert file.streams.video[0].frames == 45


def test_hunyuanvideos_vae_decodes_in_one_tile_if_memory_allows_and_streams_in_tiles_of_9(alive: Host):
    graph = Graph()
    samples, vae = noise(graph, 12), graph.add("StandInVAE")
    video = graph.add("FramePackVideo", samples=samples, vae=vae, fps=30.0)
    ways = {
        "stock": graph.add("VAEDecode", samples=samples, vae=vae),
        "whole": graph.add("FramePackVAEDecode", samples=samples, vae=vae),
        "stream": graph.add("GetVideoComponents", video=video),
        "nine": graph.add("FramePackVAEDecode", samples=samples, vae=vae, grid="9 every 7"),
    }
    for name, images in ways.items():
        graph.add("SaveImage", images=images, filename_prefix=f"auto_{name}")
    graph.queue(alive)
    pictures = {name: pictures_of(alive, f"auto_{name}") for name in ways}
    assert np.array_equal(pictures["whole"], pictures["stock"])
    assert np.array_equal(pictures["stream"], pictures["nine"])
    assert not np.array_equal(pictures["stream"], pictures["whole"])


@pytest.mark.parametrize(
    ("kind", "sizes", "fault"),
    [
        ("EmptyLatentImage", {"batch_size": 1}, r"got \(1, 4, 8, 8\)"),
        ("EmptyLTXVLatentVideo", {"batch_size": 1, "length": 9}, "128 channels.*with 16 channels"),
        ("EmptyHunyuanLatentVideo", {"batch_size": 2, "length": 5}, "one video; got 2"),
    ],
)
def test_latents_that_are_no_video_of_the_vae_are_rejected(alive: Host, kind: str, sizes: dict[str, int], fault: str):
    graph = Graph()
    samples = graph.add(kind, width=64, height=64, **sizes)
    video = graph.add("FramePackVideo", samples=samples, vae=graph.add("VAELoader", vae_name=VAE), fps=30.0)
    graph.add("SaveVideo", video=video, filename_prefix="refused", format="auto", codec="auto")
    with pytest.raises(QueueError, match=fault):
        graph.queue(alive)


def test_a_save_that_fails_leaves_no_file(alive: Host):
    graph = Graph()
    video = graph.add("FramePackVideo", samples=noise(graph, 12), vae=graph.add("StandInVAE", fails_at=2), fps=30.0)
    graph.add("SaveVideo", video=video, filename_prefix="broken", format="auto", codec="auto")
    with pytest.raises(QueueError, match="no more"):
        graph.queue(alive)
    assert not list((alive.base / "output").glob("broken*"))


def saved(host: Host, seconds: float) -> float:
    """The most memory that the host holds while it saves a video of so many seconds."""
    graph = Graph()
    length = 4 * round(seconds * 30 / 4) + 1
    latent = graph.add("EmptyHunyuanLatentVideo", width=96, height=96, length=length, batch_size=1)
    vae = graph.add("VAELoader", vae_name=VAE)
    video = graph.add("FramePackVideo", samples=latent, vae=vae, fps=30.0)
    graph.add("SaveVideo", video=video, filename_prefix=f"long{seconds:g}", format="auto", codec="auto")
    with Peak(host.process.pid) as peak:
        done = graph.queue(host)
    with av.open(str(host.base / "output" / done.files[0]["filename"])) as file:
        assert file.streams.video[0].frames == length
    return peak.most


@pytest.mark.slow
def test_a_minute_takes_no_more_memory_than_five_seconds(tmp_path: Path):
    gives_back = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # else glibc keeps holes, more of them at one time than at another
    with running(tmp_path / "host", environment=gives_back) as host:
        idle = psutil.Process(host.process.pid).memory_info().rss
        short, long = saved(host, 5), saved(host, 60)
    assert long / short <= 1.05, f"{short / 1e6:.0f} MB, then {long / 1e6:.0f} MB; idle {idle / 1e6:.0f} MB"
