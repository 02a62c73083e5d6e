"""What videos can begin with, lead to, pass through and go on from, on the built-in model and a real host."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.host.conftest import Graph, node_of
from tests.host.test_main_job import frames_of, saved, sections_run
from tools.client import QueueError, Workflow, edited, run
from tools.host import Host

F1 = "f1k1_x_f16k4f2k2f1k1_g9"


def inputs(graph: Graph, kind: str) -> dict:
    return graph.workflow[node_of(graph.workflow, kind)]["inputs"]


@pytest.fixture
def parts(short: Workflow) -> Graph:
    """The shipped workflow, short, to be extended."""
    return Graph(short)


def start(graph: Graph) -> list:
    return inputs(graph, "SectionSampler")["start_latent"]


def test_an_end_image_changes_the_video(alive: Host, parts: Graph):
    plain = frames_of(saved(alive, parts.queue(alive)))
    inputs(parts, "EndpointPlanner")["end_image"] = True
    with pytest.raises(QueueError, match="end_latent is not connected"):
        parts.queue(alive)
    inputs(parts, "SectionSampler")["end_latent"] = start(parts)
    led = frames_of(saved(alive, parts.queue(alive)))
    assert led.shape == plain.shape
    assert (led - plain).abs().max() > 0.05


def test_an_end_image_with_a_forward_schedule_is_refused(alive: Host, short: Workflow):
    values = {("PackHistory", "schedule"): F1, ("EndpointPlanner", "end_image"): True}
    with pytest.raises(QueueError, match="only an inverted schedule"):
        run(alive.url, edited(short, values))


def test_a_key_frame_is_in_the_video_and_an_endpoint_has_its_prompt(alive: Host, parts: Graph):
    inputs(parts, "EndpointPlanner")["seconds"] = 3.6
    clip = [node_of(parts.workflow, "LoadFramePackTextEncoder"), 0]
    point = parts.add("FramePackEndpoint", seconds=2.4, prompt="a blue circle moves up", keyframe="middle")
    inputs(parts, "EndpointPlanner")["endpoints"] = point
    inputs(parts, "SectionSampler")["clip"] = clip
    with pytest.raises(QueueError, match="anchors is not connected, and the plan uses 'middle'"):
        parts.queue(alive)
    inputs(parts, "SectionSampler")["anchors"] = parts.add("FramePackKeyframe", name="middle", latent=start(parts))
    done = parts.queue(alive)
    frames = frames_of(saved(alive, done))
    assert frames.shape[0] == 109
    assert any("CLIPTextEncode" in node or "." in node for node in done.ran)
    # latent 18 is the key frame: pixel frames 69 to 72, the first of them right after a section's end
    assert (frames[71] - frames[0]).abs().mean() < 0.05


def test_a_video_is_extended_forwards_and_backwards(alive: Host, parts: Graph):
    made = saved(alive, parts.queue(alive))
    path = alive.base / "input" / "clip.mp4"
    path.write_bytes(made.read_bytes())
    for extend, schedule in (("forwards", F1), ("backwards", "inverted")):
        graph = Graph(parts.workflow)
        video = graph.add("LoadVideo", file="clip.mp4")
        images = graph.add("GetVideoComponents", video=video)
        vae = inputs(graph, "FramePackVAEDecode")["vae"]
        latent = graph.add("FramePackVideoEncode", images=images, vae=vae, extend=extend)
        graph.workflow = edited(
            graph.workflow,
            {
                ("PackHistory", "schedule"): schedule,
                ("EndpointPlanner", "extend"): extend,
                ("EndpointPlanner", "video_latent"): latent,
                ("EndpointPlanner", "start_image"): False,
                ("EndpointPlanner", "without_start"): "zero latent",
                ("SectionSampler", "video_latent"): latent,
            },
        )
        frames = frames_of(saved(alive, graph.queue(alive)))
        theirs = frames_of(path)
        assert frames.shape[0] == 37 + 36
        part = frames[:33] if extend == "forwards" else frames[-33:]
        whole = theirs[:33] if extend == "forwards" else theirs[-33:]
        assert (part - whole).abs().mean() < 0.04, extend


def test_a_single_frame(alive: Host, short: Workflow):
    values = {("PackHistory", "schedule"): "f1k1_x_g1_f1k1f2k2f16k4_td", ("EndpointPlanner", "seconds"): 0.1}
    done = run(alive.url, edited(short, values))
    assert frames_of(saved(alive, done)).shape[0] == 5
    assert sections_run(done) == [0]


@pytest.mark.parametrize(("fit", "size"), [("crop", (832, 480)), ("pad", (832, 480)), ("stretch", (832, 480))])
def test_an_image_is_fitted_to_a_bucket(alive: Host, graph: Graph, fit: str, size):
    Image.new("RGB", (1600, 900), "red").save(alive.base / "input" / "wide.png")
    image = graph.add("LoadImage", image="wide.png")
    fitted = graph.add("FramePackResolution", image=image, base=640, fit=fit)
    graph.add("SaveImage", images=fitted, filename_prefix=f"fit_{fit}")
    done = graph.queue(alive)
    (item,) = next(iter(done.outputs.values()))["images"]
    picture = Image.open(alive.base / "output" / item["filename"])
    assert picture.size == size
    assert picture.getpixel((416, 240)) == (255, 0, 0)
    assert (picture.getpixel((416, 1)) == (0, 0, 0)) == (fit == "pad")


def test_a_prompt_timeline_encodes_each_prompt_once_and_an_edit_reruns_what_depends_on_it(alive: Host, parts: Graph):
    planner, sampler = inputs(parts, "EndpointPlanner"), inputs(parts, "SectionSampler")
    planner["seconds"], sampler["clip"] = 4.8, [node_of(parts.workflow, "LoadFramePackTextEncoder"), 0]
    planner["prompts"] = "0-2.4s: a red star moves up\n2.4s: a red star moves down"
    first = parts.queue(alive)
    assert sections_run(first) == [0, 1, 2, 3]
    assert len([node for node in first.ran if ".prompt_" in node]) == 2
    planner["prompts"] = "0-2.4s: a red star moves left\n2.4s: a red star moves down"
    assert sections_run(parts.queue(alive)) == [2, 3]  # inverted: the end of the video is made first, and is kept
