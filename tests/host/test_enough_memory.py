"""Too little memory is said before the first step, with what would fit, on the real host."""

from __future__ import annotations

import pytest

from tests.host.conftest import Graph, node_of
from tools.client import QueueError, Workflow, edited, run
from tools.host import Host


def limited(short: Workflow, num_bytes: int) -> Workflow:
    """The workflow with so many bytes to be had."""
    graph = Graph(edited(short, {}))
    inputs = graph.workflow[node_of(short, "SectionSampler")]["inputs"]
    inputs["model"] = graph.add("StandInMemory", model=inputs["model"], bytes=num_bytes)
    return graph.workflow


def test_it_is_said_before_sampling_with_what_would_fit(alive: Host, short: Workflow):
    steps = []
    words = r"9 latent frames at 64x64 needs at least 0\.8 MB \(\d+ tokens\); only 0\.7 MB is available"
    try:
        with pytest.raises(QueueError, match=rf"{words}.*What fits: .*a size of \d+x\d+"):
            run(alive.url, limited(short, 700_000), steps.append)
    finally:
        run(alive.url, limited(short, 0))  # and with the truth again it runs
    assert not [s for s in steps if "section" in s.node]
