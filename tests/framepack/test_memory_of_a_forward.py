"""The least memory of a section against what a real forward pass holds."""

from __future__ import annotations

import torch

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.packing.history import gather
from framepack.planning.memory import Work
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse


@torch.no_grad()
def test_the_bound_is_below_what_a_forward_really_holds():
    """Nothing may be refused that would run: the most that is alive in a forward is above the bound."""
    plan = make_plan(parse("f1k1_x_g9_f1k1f2k2f16k4_td"), num_lat_frames=19, height=256, width=256)
    section = plan.sections[0]
    sizes = {"heads": 4, "head_dim": 64, "rope_axes": (8, 28, 28), "double_blocks": 1, "single_blocks": 2}
    small = HunyuanSpec(**sizes, refiner_blocks=1, text_dim=32, pooled_dim=32, image_dim=None)
    dit = HunyuanDiT(small).eval().requires_grad_(False)
    x = torch.randn(1, 16, section.num_lat_frames, 32, 32)
    history = gather(section, {f: torch.randn(1, 16, 1, 32, 32) for f in section.known}, x)
    level = torch.tensor([500.0])

    def forward() -> None:
        dit(x, level, torch.randn(1, 5, 32), torch.randn(1, 32), level, positions=section.positions, history=history)

    work = Work(section=section, height=32, width=32, model_width=small.width, itemsize=4, matrix=0)
    forward()
    with torch.profiler.profile(profile_memory=True) as profile:
        forward()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 0.3 < work.least / peak <= 1.0
