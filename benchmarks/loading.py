"""Loading in the host: memory of its own that a checkpoint at the released model's width costs, over the file's size.

python -m benchmarks.loading

The rest of a loaded model lies in the file, mapped; the kernel may drop those pages and read them again.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from framepack.checkpoints.files import cast
from framepack.checkpoints.fp8 import SCALE, from_rows
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from tools.client import run
from tools.host import Host, running

from .timing import RESULTS, circumstances

SPEC = {"double_blocks": 1, "single_blocks": 2, "refiner_blocks": 1, "text_dim": 128, "pooled_dim": 128}
NAME = "random.safetensors"
DEVIATIONS = (0.05, 0.02, 0.01, 0.005)
# weight_dtype, target of what stays, and what the row is called
LOADS = (("default", 0.05, "bf16 file as it is"), ("fp8_e4m3fn", 0.5, "to fp8"), ("fp8_e4m3fn_scaled", 0.5, "by rows"))


def checkpoint(path: Path) -> HunyuanDiT:
    """Write a random bf16 checkpoint of one and two blocks, 3072 wide; its model, without weights."""
    dit = HunyuanDiT(HunyuanSpec(**SPEC, image_dim=None), dtype=torch.bfloat16, device="meta")
    torch.manual_seed(0)
    chunk = torch.randn(1 << 20).mul_(0.02).bfloat16()
    weights = {
        k: chunk.repeat(-(-v.numel() // len(chunk)))[: v.numel()].view(v.shape) for k, v in dit.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return dit


def anonymous(host: Host) -> int:
    """Bytes that the host's process holds in memory of its own, mapped files not counted."""
    status = Path(f"/proc/{host.process.pid}/status").read_text("utf-8")
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


@dataclass(slots=True)
class Peak:
    """The most while a block ran."""

    most: int = 0


@contextmanager
def watched(host: Host) -> Iterator[Peak]:
    """Anonymous memory while the block runs, looked at every 5 ms."""
    peak, done = Peak(anonymous(host)), threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak.most = max(peak.most, anonymous(host))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def loaded(base: Path, dtype: str) -> tuple[float, float]:
    """What stays after loading in a fresh host, and the most meanwhile, over the file's size."""
    size = (base / "models" / "diffusion_models" / NAME).stat().st_size
    with running(base) as host:
        model = {"class_type": "FramePackLoadModel", "inputs": {"weight_dtype": dtype}}
        show = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
        small = "framepack_shapes_dit.safetensors"  # first, so that what the first load imports does not count
        run(host.url, {"1": {**model, "inputs": {**model["inputs"], "model_name": small}}, "2": show})
        before = anonymous(host)
        with watched(host) as peak:
            run(host.url, {"1": {**model, "inputs": {**model["inputs"], "model_name": NAME}}, "2": show})
        return (anonymous(host) - before) / size, (peak.most - before) / size


def errors(deviation: float) -> tuple[float, float]:
    """Relative errors of a random bf16 matrix in fp8: plain, and with a scale for each row."""
    torch.manual_seed(0)
    key, scales = "m.weight", f"m.{SCALE}"
    exact = (torch.randn(3072, 3072) * deviation).bfloat16()
    plain, rows = (cast(key, exact, torch.float8_e4m3fn, by_rows) for by_rows in (False, True))
    found = plain[key].float(), from_rows(rows[key], rows[scales])
    return tuple(float((got - exact.float()).norm() / exact.float().norm()) for got in found)


def main() -> None:
    """Command line; prints and writes benchmarks/results/loading.md."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "models" / "diffusion_models" / NAME
        checkpoint(path)
        gc.collect()
        size = path.stat().st_size
        rows = []
        for dtype, target, name in LOADS:
            stays, most = loaded(Path(folder), dtype)
            rows.append(f"| {name} (`{dtype}`) | {target} | {stays:.3f} | {most:.3f} |")
    lost = []
    for deviation in DEVIATIONS:
        plain, scaled = errors(deviation)
        lost.append(f"| {deviation} | {plain:.4f} | {scaled:.4f} |")
    text = (
        f"# Loading\n\n{circumstances()}. A random file of {size / 1e9:.2f} GB, 1 + 2 blocks 3072 wide. Anonymous "
        "memory (RssAnon) that the host's process gained, over the file's size.\n\n"
        "| weights | target | stays | most while loading |\n|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "Relative error of a random matrix against bf16.\n\n"
        "| deviation of its values | fp8_e4m3fn | fp8_e4m3fn_scaled |\n|---|---|---|\n" + "\n".join(lost) + "\n"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "loading.md").write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
