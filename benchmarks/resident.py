"""Weights on the device while sampling, over the file's: modulations are tabulated and stay off it.

python -m benchmarks.resident

The first row is the released model's by its shapes. The second is what the host itself counts as loaded while it
samples with a random file of the released width.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from torch import nn

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from tools.client import run
from tools.host import running

from .loading import NAME, checkpoint
from .timing import RESULTS, circumstances


def share(dit: HunyuanDiT) -> float:
    """Parameters that are no tabulated layer's, over all."""

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    return 1 - sum(count(layer) for layer in dit.modulations) / count(dit)


def counted(base: Path) -> float:
    """Bytes that the host says it has loaded for sampling, over the file's size."""
    size = (base / "models" / "diffusion_models" / NAME).stat().st_size
    sampler = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"model": ["1", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    graph = {
        "1": {"class_type": "FramePackLoadModel", "inputs": {"model_name": NAME}},
        "2": {
            "class_type": "LoadFramePackTextEncoder",
            "inputs": {"text_encoder_name": "framepack_shapes_text.safetensors"},
        },
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 0], "text": "a red star"}},
        "4": {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {"width": 64, "height": 64, "length": 5, "batch_size": 1},
        },
        "5": {"class_type": "KSampler", "inputs": {**sampler, **links}},
        "6": {"class_type": "SaveLatent", "inputs": {"samples": ["5", 0], "filename_prefix": "resident"}},
    }
    with running(base) as host:
        run(host.url, graph)
        loads = re.findall(r"loaded (?:completely|partially).*?([\d.]+) MB loaded", host.log_text())
    return max(map(float, loads)) * 2**20 / size


def main() -> None:
    """Command line; prints and writes benchmarks/results/resident.md."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    released = share(HunyuanDiT(HunyuanSpec(), device="meta"))
    with tempfile.TemporaryDirectory() as folder:
        dit = checkpoint(Path(folder) / "models" / "diffusion_models" / NAME)
        host, own = counted(Path(folder)), share(dit)
    text = (
        f"# Resident weights\n\n{circumstances()}.\n\n| what | target | measured |\n|---|---|---|\n"
        f"| on the device while sampling / file, the released model (20 + 40 blocks) by its shapes | 0.74 | "
        f"{released:.3f} |\n"
        f"| what the host counts as loaded / file, 1 + 2 blocks 3072 wide ({own:.3f} by their shapes) | - | "
        f"{host:.3f} |\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "resident.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
