"""What videos can begin with, lead to, pass through and go on from, on the built-in model and a real host."""

from __future__ import annotations

import json
import time

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
    with pytest.raises(QueueError, match=r"f16k4f2k2f1k1_g9"):
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
    planner["prompts"] = "0-2.4s: a purple star moves up\n2.4s: a purple star moves down"
    first = parts.queue(alive)
    assert sections_run(first) == [0, 1, 2, 3]
    assert len([node for node in first.ran if ".prompt_" in node]) == 2
    planner["prompts"] = "0-2.4s: a purple star moves left\n2.4s: a purple star moves down"
    assert sections_run(parts.queue(alive)) == [2, 3]  # inverted: the end of the video is made first, and is kept


def test_of_four_sections_the_third_ones_prompt_reruns_the_third_and_fourth(alive: Host, parts: Graph):
    """In order of generation, which is that of time here."""
    planner, sampler = inputs(parts, "EndpointPlanner"), inputs(parts, "SectionSampler")
    inputs(parts, "PackHistory")["schedule"] = F1
    planner["seconds"], sampler["clip"] = 4.8, [node_of(parts.workflow, "LoadFramePackTextEncoder"), 0]
    lines = ["0-2.4s: a red star moves up", "2.4-3.6s: a red star moves down", "3.6s: a red star moves left"]
    planner["prompts"] = "\n".join(lines)
    assert sections_run(parts.queue(alive)) == [0, 1, 2, 3]
    planner["prompts"] = "\n".join([lines[0], "2.4-3.6s: a red star moves slowly down", lines[2]])
    assert sections_run(parts.queue(alive)) == [2, 3]


def test_two_endpoints_with_prompts_of_their_own_run_and_an_edit_of_one_leaves_the_other_gap(alive: Host, parts: Graph):
    planner, sampler = inputs(parts, "EndpointPlanner"), inputs(parts, "SectionSampler")
    planner["seconds"], sampler["clip"] = 7.2, [node_of(parts.workflow, "LoadFramePackTextEncoder"), 0]
    first = parts.add("FramePackEndpoint", seconds=2.4, prompt="a purple circle moves up", keyframe="")
    second = parts.add("FramePackEndpoint", seconds=4.8, prompt="a purple square", keyframe="", previous=first)
    planner["endpoints"] = second
    done = parts.queue(alive)
    assert frames_of(saved(alive, done)).shape[0] == 217
    assert len([node for node in done.ran if ".prompt_" in node]) == 2
    every = sections_run(done)
    assert sections_run(parts.queue(alive)) == []
    parts.workflow[second[0]]["inputs"]["prompt"] = "a yellow square"
    again = sections_run(parts.queue(alive))
    assert 0 < len(again) < len(every)
    assert not set(again) & {0, 1}  # the first endpoint and the section after it


def test_a_model_that_is_connected_to_the_planner_leaves_finished_sections_alone(alive: Host, parts: Graph):
    inputs(parts, "SectionSampler")["seed"] = 9157  # newer hosts keep what another test sampled
    assert sections_run(parts.queue(alive)) == [0]
    inputs(parts, "EndpointPlanner")["model"] = inputs(parts, "SectionSampler")["model"]
    assert sections_run(parts.queue(alive)) == []


TIMELINES = {
    "overlap": ("0-2s: up\n1-3s: down", ["Line 2", "1 s", "2 s"]),
    "no time": ("up", ["Line 1", "'up'"]),
    "too late": ("0-7s: up\n7-9s: down", ["Line 2", "7 s", "1.23 s"]),
    "a lone surrogate": ("\ud800", ["Line 1", r"\ud800"]),
    "a lone surrogate in a prompt": ("0s: \ud800", [r"\ud800"]),
}


@pytest.mark.parametrize("case", TIMELINES)
def test_a_fault_of_the_timeline_is_stated_with_its_line_and_time(alive: Host, short: Workflow, case: str):
    text, words = TIMELINES[case]
    with pytest.raises(QueueError) as caught:
        run(alive.url, edited(short, {("EndpointPlanner", "prompts"): text}))
    for word in ["EndpointPlanner", *words]:
        assert word in str(caught.value)


POINTS = {
    "too near": ([(2.0, ""), (2.8, "")], ["2 s and 2.8 s", "with 5 "]),
    "too late": ([(9.0, "")], ["got 9 s"]),
    "without its image": ([(2.4, "gone")], ["the plan uses 'gone'"]),
}


@pytest.mark.parametrize("case", POINTS)
def test_an_endpoint_out_of_place_is_named_by_its_time(alive: Host, parts: Graph, case: str):
    points, words = POINTS[case]
    inputs(parts, "EndpointPlanner")["seconds"] = 4.8
    link = None
    for seconds, keyframe in points:
        before = {"previous": link} if link else {}
        link = parts.add("FramePackEndpoint", seconds=seconds, prompt="", keyframe=keyframe, **before)
    inputs(parts, "EndpointPlanner")["endpoints"] = link
    with pytest.raises(QueueError) as caught:
        parts.queue(alive)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[", r"'\['"),
        ("{}", r"got \{\}"),
        ("[1]", "got 1"),
        ('[{"seconds": NaN, "prompt": null, "keyframe": null}]', "got nan"),
        ('[{"seconds": 1e400, "prompt": null, "keyframe": null}]', "got inf"),
        ('["a"]', "got 'a'"),
    ],
)
def test_endpoints_of_another_form_are_rejected(alive: Host, short: Workflow, text: str, value: str):
    with pytest.raises(QueueError, match=f"EndpointPlanner.*{value}"):
        run(alive.url, edited(short, {("EndpointPlanner", "endpoints"): text}))


def test_a_key_frame_of_another_size_or_model_is_refused(alive: Host, parts: Graph):
    inputs(parts, "EndpointPlanner")["seconds"] = 3.6
    inputs(parts, "EndpointPlanner")["endpoints"] = parts.add(
        "FramePackEndpoint", seconds=2.4, prompt="", keyframe="middle"
    )
    for kind, size, words in (
        ("EmptyHunyuanLatentVideo", {"width": 96, "height": 64, "length": 1}, "middle.*96x64"),
        ("EmptyLatentImage", {"width": 64, "height": 64}, "16 channels.*got 4"),
    ):
        latent = parts.add(kind, batch_size=1, **size)
        inputs(parts, "SectionSampler")["anchors"] = parts.add("FramePackKeyframe", name="middle", latent=latent)
        with pytest.raises(QueueError, match=words):
            parts.queue(alive)


def test_what_is_too_much_is_refused_before_it_expands(alive: Host, parts: Graph):
    began = time.monotonic()
    planner, sampler = inputs(parts, "EndpointPlanner"), inputs(parts, "SectionSampler")
    sampler["clip"] = [node_of(parts.workflow, "LoadFramePackTextEncoder"), 0]
    inputs(parts, "PackHistory")["schedule"] = "td_f1k1_g1"
    planner["seconds"] = 60.0
    planner["prompts"] = "\n".join(f"{i / 5:.1f}s: number {i}" for i in range(200))
    with pytest.raises(QueueError, match="128.*200 prompts"):
        parts.queue(alive)
    section = {"makes": [[0, 9002]], "positions": [*range(9002)], "context": []}
    plan = {"schedule": "td_f1k1_g9", "num_lat_frames": 9002, "height": 64, "width": 64, "sections": [section]}
    sampler["plan"] = json.dumps(plan)
    with pytest.raises(QueueError, match="1 to 9001 latent frames; got 9002"):
        parts.queue(alive)
    assert time.monotonic() - began < 20
