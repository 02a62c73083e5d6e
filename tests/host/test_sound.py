"""Sound: an extended video keeps its own, and FramePack Video takes another, as long as the video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.host.conftest import Graph, files_of, node_of
from tests.host.test_tasks import F1, inputs
from tools.client import Workflow, edited
from tools.host import Host

RATE, FPS, NUM = 16_000, 30, 37


def write_clip(path: Path) -> None:
    """37 frames with a tone."""
    with av.open(str(path), "w") as file:
        video, sound = file.add_stream("h264", rate=FPS), file.add_stream("aac", rate=RATE, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for i in range(NUM):
            picture = np.full((64, 64, 3), 4 * i, np.uint8)
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(video.encode(None))
        wave = 0.5 * np.sin(np.arange(RATE * NUM // FPS) * 2 * np.pi * 440 / RATE).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave[None], "flt", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode(None))


def loudness(path: Path) -> tuple[int, np.ndarray]:
    """A file's frames, and the loudness of its sound in each tenth of a second."""
    with av.open(str(path)) as file:
        num = sum(1 for _ in file.decode(video=0))
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        wave = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    tenths = wave[: len(wave) // (rate // 10) * (rate // 10)].reshape(-1, rate // 10)
    return num, np.sqrt((tenths**2).mean(1))


def saved_sound(host: Host, graph: Graph, prefix: str, **video: object) -> tuple[int, np.ndarray]:
    sampler, vae = (node_of(graph.workflow, kind) for kind in ("SectionSampler", "VAELoader"))
    skipped = {"SaveVideo", "CreateVideo", "FramePackVAEDecode"}
    graph = Graph({n: node for n, node in graph.workflow.items() if node["class_type"] not in skipped})
    made = graph.add("FramePackVideo", samples=[sampler, 0], vae=[vae, 0], fps=float(FPS), **video)
    graph.add("SaveVideo", video=made, filename_prefix=prefix, format="mp4", codec="h264")
    graph.queue(host)
    return loudness(files_of(host, prefix, ".mp4")[-1])


@pytest.fixture
def clip(host: Host) -> str:
    write_clip(host.base / "input" / "tone.mp4")
    return "tone.mp4"


@pytest.mark.parametrize(("extend", "schedule"), [("forwards", F1), ("backwards", "inverted")])
def test_an_extended_video_keeps_its_sound_at_its_own_time(
    alive: Host, short: Workflow, clip: str, extend: str, schedule: str
):
    graph = Graph(short)
    parts = graph.add("GetVideoComponents", video=graph.add("LoadVideo", file=clip))
    vae = inputs(graph, "FramePackVAEDecode")["vae"]
    given = {"images": parts, "vae": vae, "extend": extend, "audio": [parts[0], 1], "fps": [parts[0], 2]}
    latent = graph.add("FramePackVideoEncode", **given)
    values = {
        ("PackHistory", "schedule"): schedule,
        ("EndpointPlanner", "extend"): extend,
        ("EndpointPlanner", "video_latent"): latent,
        ("EndpointPlanner", "start_image"): False,
        ("EndpointPlanner", "without_start"): "zero latent",
        ("SectionSampler", "video_latent"): latent,
    }
    graph.workflow = edited(graph.workflow, values)
    num, loud = saved_sound(alive, graph, f"sound_{extend}")
    assert num == 73
    loud = loud[:24]
    own, other = (loud[:12], loud[14:]) if extend == "forwards" else (loud[13:], loud[:11])
    assert own.min() > 0.2
    assert other.max() < 0.02


def test_another_sound_is_cut_to_the_video(alive: Host, short: Workflow, clip: str):
    graph = Graph(edited(short, {("EndpointPlanner", "exact_length"): True, ("EndpointPlanner", "seconds"): 0.7}))
    parts = graph.add("GetVideoComponents", video=graph.add("LoadVideo", file=clip))
    num, loud = saved_sound(alive, graph, "sound_other", audio=[parts[0], 1])
    assert num == 21
    assert 6 <= len(loud) <= 8
    assert loud[:6].min() > 0.2
