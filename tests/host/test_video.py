"""A VIDEO that is decoded while it is saved: the same frames, in memory that does not grow."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from PIL import Image

from tests.host.conftest import Graph, node_of
from tests.host.test_memory import Peak
from tools.client import Workflow
from tools.host import Host, running

VAE = "framepack_shapes_vae.safetensors"


def pictures_of(folder: Path, prefix: str) -> np.ndarray:
    """All pictures of a prefix, in order, ``n h w c``."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob(f"{prefix}_*.png"))])


def test_a_streamed_video_has_the_frames_of_one_that_is_decoded_at_once(alive: Host, short: Workflow):
    graph = Graph(short)
    samples, vae = [node_of(short, "SectionSampler"), 0], [node_of(short, "VAELoader"), 0]
    video = graph.add("FramePackVideo", samples=samples, vae=vae, fps=30.0)
    graph.add("SaveVideo", video=video, filename_prefix="streamed", format="auto", codec="auto")
    streamed = graph.add("GetVideoComponents", video=video)
    graph.add("SaveImage", images=streamed, filename_prefix="streamed")
    graph.add("SaveImage", images=[node_of(short, "FramePackVAEDecode"), 0], filename_prefix="whole")
    graph.queue(alive)
    pictures = [pictures_of(alive.base / "output", name) for name in ("streamed", "whole")]
    assert len(pictures[0]) == 37
    assert np.array_equal(*pictures)
    (film,) = (alive.base / "output").glob("streamed_*.mp4")
    with av.open(str(film)) as file:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert np.abs(shown.astype(int) - pictures[0]).mean() < 3  # what the codec loses


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
    with running(tmp_path / "host") as host:
        idle = psutil.Process(host.process.pid).memory_info().rss
        short, long = saved(host, 5), saved(host, 60)
    assert long / short <= 1.05, f"{short / 1e6:.0f} MB, then {long / 1e6:.0f} MB; idle {idle / 1e6:.0f} MB"
