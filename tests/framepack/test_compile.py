"""torch.compile: every kind of block becomes one graph, which serves all sections of a video."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from tests.backbones import SMALL, Small
from tests.framepack.test_backbones import filled

SCHEDULES = ("f1k1_x_g9_f1k1f2k2f16k4_td", "f16k4f2k2f1k1_g5", "tc_f64k8f16k4f4k2f1k1_g9")
KINDS = {"hunyuan": 3, "wan-text": 2, "wan-image": 2, "helios": 2}  # kinds of blocks; the last makes fewer tokens


@pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)
def test_sections_of_any_layout_share_the_graphs_of_the_blocks(small: Small):
    torch._dynamo.reset()
    model, plain = small.model(), small.model()
    graphs = CompileCounterWithBackend("eager")
    model.compile_blocks(backend=graphs, fullgraph=True)
    layouts, counts = set(), []
    with torch.inference_mode():
        for schedule in SCHEDULES:
            for section in make_plan(parse(schedule), num_lat_frames=40).sections[-2:]:
                x, history = filled(section, 6, 10)
                got = small.run(model, x, section.positions, history)
                expected = small.run(plain, x, section.positions, history)
                assert (got - expected).norm() / expected.norm() < 1e-5
                layouts.add(tuple(group.latents.shape[2] for group in history))
                counts.append(graphs.frame_count)
    assert len(layouts) >= len(SCHEDULES)
    assert counts == [KINDS[small.name]] * len(counts)
