"""Loading by memory map: a checkpoint of 4 GB costs no second copy, not even while it samples."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peak import Peak
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from tests.host.conftest import Graph
from tools.host import running


def write(path: Path) -> int:
    """A random bf16 checkpoint at the released model's width; its size in bytes."""
    sizes = {"double_blocks": 4, "single_blocks": 5, "refiner_blocks": 1, "text_dim": 128, "pooled_dim": 128}
    dit = HunyuanDiT(HunyuanSpec(**sizes, image_dim=None), dtype=torch.bfloat16, device="meta")
    weights = {k: torch.full(v.shape, 0.01, dtype=torch.bfloat16) for k, v in dit.state_dict().items()}
    save_file(weights, path)
    return path.stat().st_size


@pytest.mark.slow
def test_a_checkpoint_of_4_gb_is_mapped(tmp_path: Path):
    path = tmp_path / "host" / "models" / "diffusion_models" / "large.safetensors"
    path.parent.mkdir(parents=True)
    size = write(path)
    assert size > 3.9e9
    with running(tmp_path / "host") as host:
        graph = Graph()
        model = graph.add("FramePackLoadModel", model_name="large.safetensors")
        graph.add("PreviewAny", source=model)
        start = psutil.Process(host.process.pid).memory_info().rss
        with Peak(host.process.pid) as peak:
            graph.queue(host)
        assert (peak.most - start) / size < 0.2  # nothing but the head of each tensor is touched
        clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
        text = graph.add("CLIPTextEncode", clip=clip, text="a red star")
        latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=5, batch_size=1)
        names = {"seed": 3, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        samples = graph.add("KSampler", model=model, positive=text, negative=text, latent_image=latent, **names)
        graph.add("SaveLatent", samples=samples, filename_prefix="large")
        with Peak(host.process.pid) as peak:
            graph.queue(host)
        assert (peak.most - start) / size <= 1.1
