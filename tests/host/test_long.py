"""A plan of a thousand sections on the real host, with a model of one narrow block."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peak import Peak
from framepack.checkpoints.convert import convert
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from tests.host.conftest import Graph, newest_latents
from tools.host import running

NUM_SECTIONS, MAX_NODES = 1000, 256


@pytest.mark.slow
def test_a_thousand_sections_run_in_few_nodes_and_little_memory(tmp_path: Path):
    sizes = {"heads": 1, "head_dim": 16, "double_blocks": 1, "single_blocks": 0, "refiner_blocks": 1}
    spec = HunyuanSpec(**sizes, text_dim=128, pooled_dim=128, image_dim=None, rope_axes=(4, 6, 6))
    plain = {k: v for k, v in HunyuanDiT(spec).state_dict().items() if "clean_x" not in k}
    save_file({k: 0.05 * torch.randn_like(v) for k, v in plain.items()}, tmp_path / "plain.safetensors")
    models = tmp_path / "host" / "models" / "diffusion_models"
    models.mkdir(parents=True)
    convert(tmp_path / "plain.safetensors", models / "tiny.safetensors")
    graph = Graph()
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    schedule = graph.add("PackHistory", schedule="td_f16k4f2k2f1k1_g9", width=16, height=16)
    values = {"seconds": 1200.0, "fps": 30.0, "width": 16, "height": 16, "start_image": False}
    plan = graph.add("EndpointPlanner", schedule=schedule, without_start="zero latent", **values)
    samples = graph.add(
        "SectionSampler",
        model=graph.add("FramePackLoadModel", model_name="tiny.safetensors"),
        positive=graph.add("CLIPTextEncode", clip=clip, text="a red star"),
        plan=plan,
        **{"seed": 1, "steps": 1, "cfg": 1.0, "guidance": 10.0},
    )
    graph.add("SaveLatent", samples=samples, filename_prefix="long")
    with running(tmp_path / "host") as host:
        idle = psutil.Process(host.process.pid).memory_info().rss
        with Peak(host.process.pid) as peak:
            done = graph.queue(host)
        sections = [node for node in done.ran if "section_" in node]
        assert 1 < len(sections) <= MAX_NODES
        stored = list((host.base / "user" / "framepack_sections").glob("*.safetensors"))
        assert len(stored) == NUM_SECTIONS
        assert peak.most - idle < 600e6, f"{(peak.most - idle) / 1e6:.0f} MB"
        latents = newest_latents(host, "long")
        assert latents.shape == (1, 16, 9 * NUM_SECTIONS, 2, 2)
        assert torch.isfinite(latents).all()
