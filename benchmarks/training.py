"""Training: memory as it is stated and as it is, a step's time against a bare loop, and what a long history costs.

python -m benchmarks.training [--rounds 3] [--parts bare history memory]

Memory is the most that PyTorch's allocator holds, which must agree with what a run states, and the process's most
above what it holds after a step of a tiny model: the C library keeps holes between tensors. The bare loop makes the
same matrix products and attention, forwards and backwards, with each block recomputed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.training.cache import Clip, Index, clip_path, write_tensors
from framepack.training.clips import Clips
from framepack.training.config import Config, Data, Model, Run, Share, Stage
from framepack.training.fitting import footprint_of, largest_batch
from framepack.training.step_data import draw
from framepack.training.trainees import Recompute, Trainee
from framepack.training.trainer import Trainer

from .peak import Peak
from .timing import circumstances, ratio, rounds, shown

SCHEDULE = "f1k1_x_g9_f1k1f2k2f16k4_td"
WORDS = 60
# The C library gives memory of tensors back as soon as they are gone, as a GPU's allocator can use it again at once.
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Sizes of a run; height and width are latent."""

    name: str
    heads: int
    double: int
    single: int
    grid: tuple[int, int] = (16, 24)
    num_lat_frames: int = 19
    batch: int = 1
    recompute: bool = True
    optimizer: str = "adafactor"
    ema: float = 0.0


MEASURED = (
    Case(name="512 wide, 4 + 8 blocks, AdamW, EMA", heads=4, double=4, single=8, optimizer="adamw", ema=0.9),
    Case(
        name="512 wide, 2 + 4 blocks, 2 clips, nothing recomputed",
        heads=4,
        double=2,
        single=4,
        batch=2,
        recompute=False,
    ),
    Case(name="768 wide, 2 + 4 blocks, Adafactor", heads=6, double=2, single=4),
)


def spec_of(case: Case) -> HunyuanSpec:
    """The model of a case."""
    sizes = {"heads": case.heads, "double_blocks": case.double, "single_blocks": case.single}
    return HunyuanSpec(**sizes, refiner_blocks=1, text_dim=256, pooled_dim=64, image_dim=None, guidance=False)


def words_of(spec: HunyuanSpec, device: str = "cpu") -> Callable[[list[str]], dict[str, Tensor]]:
    """Random words for any captions."""

    def words(captions: list[str]) -> dict[str, Tensor]:
        b = len(captions)
        return {
            "context": torch.randn(b, WORDS, spec.text_dim, device=device),
            "y": torch.randn(b, spec.pooled_dim, device=device),
        }

    return words


def trainer_of(case: Case, folder: Path) -> Trainer:
    """The trainer of a case on one random clip."""
    shape = (16, case.num_lat_frames, *case.grid)
    write_tensors(clip_path(folder, "0.safetensors"), {"0": torch.randn(shape)})
    clip = Clip(file="0.safetensors", name="0", shape=shape, captions=("random",))
    Index(encoder="random", clips=(clip,)).write(folder)
    share = Share(schedule=SCHEDULE, num_lat_frames=case.num_lat_frames, sections="first")
    stage = Stage(steps=100, mixture=(share,), optimizer=case.optimizer, rate=1e-4)  # type: ignore[arg-type]
    config = Config(
        model=Model(path=folder, compute="fp32", checkpointing=case.recompute),
        data=Data(cache=folder),
        run=Run(out=folder / "out", batch=case.batch, ema=case.ema),
        stage=(stage,),
    )
    spec = spec_of(case)
    dit = HunyuanDiT(spec)
    for parameter in dit.parameters():
        nn.init.normal_(parameter, std=0.02)
    recompute = Recompute(dit, case.recompute)
    return Trainer(config, Trainee(dit), Clips(folder), words_of(spec), recompute=recompute)


def measured(case: Case) -> tuple[int, int, int]:
    """Bytes that a case's run states, those that PyTorch holds for it at most, and those of its process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        tiny = replace(case, heads=1, double=1, single=1, grid=(4, 4))
        trainer_of(tiny, Path(folder)).step()  # what PyTorch loads for its first step is no run's
        before = psutil.Process().memory_info().rss
        with Peak(os.getpid()) as peak:
            stated = two_steps(case, Path(folder))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
            two_steps(case, Path(folder))
        return stated, most_held(told), peak.most - before


def two_steps(case: Case, folder: Path) -> int:
    """Make a case's run and do two steps: from the second on, the optimizer has its state. The bytes it states."""
    trainer = trainer_of(case, folder)
    for _ in range(2):
        trainer.step()
    return footprint_of(trainer, trainer.config).peak


def most_held(told: profile) -> int:
    """The most bytes of tensors that were there at once, by what PyTorch's allocator reported."""
    events = [event for event in told.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def once(trainer: Trainer) -> None:
    """Draw, forward and backward of a run's first step."""
    trainer.backward(draw(trainer.config, 0, trainer.clips))
    trainer.model.zero_grad(set_to_none=True)


def memory_table() -> Iterator[str]:
    """Stated and measured memory of each case."""
    yield "| run | stated | PyTorch holds | over stated | the process | over stated |"
    yield "|---|---|---|---|---|---|"
    os.environ |= AT_ONCE  # of the processes that start now
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case in MEASURED:
            stated, *taken = pool.apply(measured, (case,))
            cells = (f"{num / 1e6:.0f} MB | {num / stated:.2f}" for num in taken)
            yield f"| {case.name} | {stated / 1e6:.0f} MB | {' | '.join(cells)} |"


class Bare(nn.Module):
    """The matrix products and the attention of a case's blocks over its tokens, and nothing else."""

    def __init__(self, spec: HunyuanSpec, picture: int, words: int):
        super().__init__()
        d, self.heads, self.picture = spec.width, spec.heads, picture
        double = [[(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] for _ in range(2)]
        self.doubles = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(nn.Linear(*pair) for pair in stream) for stream in double)
            for _ in range(spec.double_blocks)
        )
        self.singles = nn.ModuleList(
            nn.ModuleList([nn.Linear(d, 7 * d), nn.Linear(5 * d, d)]) for _ in range(spec.single_blocks)
        )
        self.words = words

    def attend(self, qkv: Tensor) -> Tensor:
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def both(self, x: Tensor, block: Any) -> Tensor:
        parts = x.split([self.picture, self.words], 1)
        seen = self.attend(torch.cat([stream[0](part) for stream, part in zip(block, parts, strict=True)], 1))
        seen = seen.split([self.picture, self.words], 1)
        return torch.cat([s[3](s[2](s[1](part))) for s, part in zip(block, seen, strict=True)], 1)

    def one(self, x: Tensor, block: Any) -> Tensor:
        d = x.shape[-1]
        qkv, inner = block[0](x).split([3 * d, 4 * d], -1)
        return block[1](torch.cat([self.attend(qkv), inner], -1))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.doubles:
            x = checkpoint(self.both, x, block, use_reentrant=False)
        for block in self.singles:
            x = checkpoint(self.one, x, block, use_reentrant=False)
        return x


def time_against_bare(num: int) -> str:
    """A step without its optimizer against the bare loop, 1024 wide."""
    case = Case(name="", heads=8, double=1, single=2, grid=(16, 24))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(case, Path(folder))
        batch, _ = largest_batch(trainer, trainer.config, trainer.config.stage[0], 1)
        made = batch.noisy.shape[2] * 8 * 12
        picture = made + sum(group.num_tokens(trainer.geometry.patch) for group in batch.history)
        bare = Bare(spec_of(case), picture, WORDS)
        x = torch.randn(1, picture + WORDS, spec_of(case).width, requires_grad=True)

        ours = partial(once, trainer)

        def theirs() -> None:
            bare(x).sum().backward()
            bare.zero_grad(set_to_none=True)

        return shown(ratio(rounds({"ours": ours, "bare": theirs}, num, clock=time.process_time), "ours", "bare"))


def time_of_history(num: int) -> str:
    """A step with 120 s of video planned against one with 5 s: the first section of each sees as much."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (120, 5):
            length = 1 + 9 * round(seconds * 30 / 36)
            case = Case(name="", heads=4, double=1, single=2, grid=(8, 12), num_lat_frames=length)
            trainer = trainer_of(case, Path(folder) / str(seconds))
            stage = trainer.config.stage[0]
            last = tuple(replace(share, sections="any") for share in stage.mixture)
            trainer.config = replace(trainer.config, stage=(replace(stage, mixture=last),))
            found[str(seconds)] = partial(once, trainer)
        return shown(ratio(rounds(found, num, warmup=3, clock=time.process_time), "120", "5"))


def main() -> None:
    """Command line; prints each part as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", choices=("bare", "history", "memory"), help="all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "bare": lambda: bare_lines(args.rounds),
        "history": lambda: history_lines(6 * args.rounds),
        "memory": memory_table,
    }
    for name in args.parts or parts:
        for line in chain(("", circumstances(), ""), parts[name]()):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


def bare_lines(num: int) -> Iterator[str]:
    """A step against the bare loop."""
    yield f"A step, 1024 wide, against a bare loop of the same products: {time_against_bare(num)}."


def history_lines(num: int) -> Iterator[str]:
    """A long history against a short one."""
    yield f"A step of a video of 120 s against one of 5 s: {time_of_history(num)}."


if __name__ == "__main__":
    main()
