"""An exact length on the graph: every way to decode gives the frames that were asked for, and whole latents stay."""

from __future__ import annotations

import numpy as np

from tests.host.conftest import Graph, newest_latents, node_of, pictures_of
from tests.host.test_frames import FORWARD, with_vae
from tools.client import Workflow, edited
from tools.host import Host


def test_an_exact_video_has_its_frames_however_it_is_decoded(alive: Host, shipped: Workflow):
    """1.5 s are 45 frames of the 73 of two sections."""
    graph = Graph(edited(with_vae(shipped, FORWARD, 1.5, 83).workflow, {("EndpointPlanner", "exact_length"): True}))
    sampler, vae = (node_of(graph.workflow, kind) for kind in ("SectionSampler", "VAELoader"))
    video = graph.add("FramePackVideo", samples=[sampler, 0], vae=[vae, 0], fps=30.0)
    frames = graph.add("GetVideoComponents", video=video)
    graph.add("SaveImage", images=frames, filename_prefix="streamed_83_1.5")
    graph.add("SaveLatent", samples=[sampler, 0], filename_prefix="exact")
    graph.queue(alive)
    names = ("piecewise", "at_once", "streamed")
    one, other, third = (pictures_of(alive, f"{name}_83_1.5") for name in names)
    assert len(one) == 45
    assert np.array_equal(one, other)
    assert np.array_equal(one, third)
    assert newest_latents(alive, "exact").shape[2] == 19


def test_the_planner_states_both_lengths(alive: Host, shipped: Workflow):
    for exact, words in ((False, "145 frames, 4.83 s (exact: 150 frames"), (True, "150 frames of 181 decoded, 5.00 s")):
        graph = Graph(edited(shipped, {("EndpointPlanner", "exact_length"): exact}))
        planner = node_of(graph.workflow, "EndpointPlanner")
        kept = {n: node for n, node in graph.workflow.items() if node["class_type"] in ("PackHistory",)}
        graph.workflow = kept | {planner: graph.workflow[planner]}
        graph.workflow[planner]["inputs"].pop("start_latent", None)
        graph.add("PreviewAny", source=[planner, 0])
        done = graph.queue(alive)
        assert words in str(done.outputs[planner]["text"])
