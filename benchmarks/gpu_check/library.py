"""Parts that need no ComfyUI: every backbone on the device against the CPU, attention, and a step's ways.

Dims: b batch, n heads, l tokens, e head dim.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from framepack.checkpoints.fp8 import from_rows, to_rows
from framepack.checkpoints.gguf_blocks import BLOCKS, dequantized, in_parts
from framepack.errors import MissingPackageError
from framepack.models.helios import HeliosDiT, HeliosSpec
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec
from framepack.models.wan import WanDiT, WanSpec
from framepack.nn.attention import attention_named
from framepack.packing.history import ContextGroup
from framepack.units import Kernel

from .. import gpu
from ..gguf import blocks, seconds, share

HISTORY = ((1, (0, 19)), (2, (20, 21)), (4, tuple(range(22, 38))))  # kernel and positions, the inverted model's
GENERATED = range(10, 19)
RELEASED_TOKENS = 18755  # of a section at 480 x 832
MOST = {"fp32": 1e-4, "bf16": 3e-2, "fp8 by rows": 1e-1}  # relative error, or the part fails


def device() -> str:
    """CUDA where it is, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def parity(small: bool) -> Iterator[str]:
    """Velocities of every backbone on the device against float32 on the CPU, where tests hold them to diffusers'."""
    sides = (4, 6) if small else (24, 40)
    yield from ("| backbone, weights | relative error | at most |", "|---|---|---|")
    wrong = 0
    with _exact_products():
        for name, make in (("HunyuanVideo", _hunyuan), ("Wan 2.1", _wan), ("Helios", _helios)):
            model, forward = make(small, sides)
            expected = forward(model)
            for weights, most in MOST.items():
                copy = _in_precision(model, make(small, sides)[0], weights).to(device())
                got = forward(copy).float().cpu()
                error = float((got - expected).norm() / expected.norm())
                yield f"| {name}, {weights} | {error:.1e} | {most:.0e} |"
                wrong += not error <= most
    if wrong:
        raise AssertionError(f"{wrong} errors are too large")


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32: float32 products are what they say."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before)


def _random(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.normal_(std=0.05)
    return model.eval().requires_grad_(False)


def _in_precision(model: nn.Module, copy: nn.Module, weights: str) -> nn.Module:
    """A copy in a precision; fp8 weights of blocks are those that a scale for each row gives back."""
    copy.load_state_dict(model.state_dict())
    if weights == "fp8 by rows":
        for name, layer in copy.named_modules():
            if isinstance(layer, nn.Linear) and "blocks." in name:
                layer.weight.data = from_rows(*to_rows(layer.weight.data)).to(layer.weight.dtype)
    return copy.to(torch.float32 if weights == "fp32" else torch.bfloat16)


def _history(sides: tuple[int, int], like: Tensor) -> list[ContextGroup]:
    draw = torch.Generator().manual_seed(1)
    return [
        ContextGroup(
            kernel=Kernel.short(k),
            latents=torch.randn(1, 16, len(where), *sides, generator=draw).to(like),
            positions=where,
        )
        for k, where in HISTORY
    ]


def _given(model: nn.Module, sides: tuple[int, int], *shapes: tuple[int, ...]) -> list[Tensor]:
    """Noise of a section and other random inputs, in the model's dtype and on its device."""
    draw, like = torch.Generator().manual_seed(2), next(model.parameters())
    return [torch.randn(shape, generator=draw).to(like) for shape in ((1, 16, len(GENERATED), *sides), *shapes)]


def _hunyuan(small: bool, sides: tuple[int, int]) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    sizes = {"heads": 2 if small else 6, "double_blocks": 1 if small else 2, "single_blocks": 2}
    spec = HunyuanSpec(**sizes, refiner_blocks=1, text_dim=64, pooled_dim=32, image_dim=32)

    def forward(model: nn.Module) -> Tensor:
        x, text, pooled, image = _given(model, sides, (1, 20, 64), (1, 32), (1, 30, 32))
        level, guidance = (torch.tensor([value], device=x.device) for value in (500.0, 9984.0))
        history = _history(sides, x)
        return model(x, level, text, pooled, guidance, positions=GENERATED, history=history, image=image)

    return _random(HunyuanDiT(spec, exact=True)), forward


def _wan(small: bool, sides: tuple[int, int]) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    heads = 2 if small else 6
    spec = WanSpec(heads=heads, ffn_dim=512 * heads, blocks=2, text_dim=64)

    def forward(model: nn.Module) -> Tensor:
        x, text = _given(model, sides, (1, 20, 64))
        level = torch.tensor([500.0], device=x.device)
        return model(x, level, text, positions=GENERATED, history=_history(sides, x))

    return _random(WanDiT(spec)), forward


def _helios(small: bool, sides: tuple[int, int]) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    heads = 2 if small else 6
    spec = HeliosSpec(heads=heads, ffn_dim=512 * heads, blocks=2, text_dim=64, key_scales=heads)

    def forward(model: nn.Module) -> Tensor:
        x, text = _given(model, sides, (1, 20, 64))
        level = torch.tensor([500.0], device=x.device)
        return model(x, level, text, positions=GENERATED, history=_history(sides, x))

    return _random(HeliosDiT(spec)), forward


def attention(small: bool) -> list[str]:
    """Back ends at the released shape: error of 256 queries against float32, and milliseconds."""
    shape = (1, 2, 300, 32) if small else (1, 24, RELEASED_TOKENS, 128)
    torch.manual_seed(0)
    q, k, v = (torch.randn(shape, device=device()).to(torch.bfloat16) for _ in range(3))
    some = slice(0, 256)
    with sdpa_kernel(SDPBackend.MATH):
        exact = F.scaled_dot_product_attention(q[:, :, some].float(), k.float(), v.float()).transpose(1, 2).flatten(2)
    rows = [f"q, k, v {shape}, bfloat16", "", "| back end | relative error | ms |", "|---|---|---|"]
    for name, run in _back_ends():
        try:
            got = run(q, k, v)
            error = float((got[:, some].float() - exact).norm() / exact.norm())
            rows.append(f"| {name} | {error:.1e} | {_milliseconds(lambda run=run: run(q, k, v), small):.1f} |")
        except (MissingPackageError, RuntimeError) as fault:
            rows.append(f"| {name} | {str(fault).splitlines()[0][:100]} | |")
    return rows


def _back_ends() -> Iterator[tuple[str, Callable[..., Tensor]]]:
    yield "sdpa, as PyTorch chooses", attention_named("sdpa")

    def flash(*given: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return attention_named("sdpa")(*given)

    yield "sdpa, flash", flash
    yield "sageattention", lambda *given: attention_named("sage")(*given)


def _milliseconds(run: Callable[[], object], small: bool) -> float:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = []
    for _ in range(2 if small else 12):
        wait()
        began = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - began))
    return sorted(times[len(times) // 4 :])[len(times) // 3]


def gguf(small: bool) -> Iterator[str]:
    """Dequantizing every matrix of the blocks once, over a step at the released width; and the values' error."""
    case = gpu.case_of(small)
    model = gpu.Ours(case, device())
    step = seconds(model.ours, 3 if small else 10, device())
    yield from (
        "| type | of a step | step by step | largest difference from the CPU's, of the row's largest value |",
        "|---|---|---|---|",
    )
    for kind in BLOCKS:
        ways = (share(model, step, device(), kind, read) for read in (dequantized, in_parts))
        packed = blocks(torch.Size((64, 512)), kind, "cpu")
        expected = dequantized(packed, kind).nan_to_num(0, 0, 0)
        error = (dequantized(packed.to(device()), kind).cpu().nan_to_num(0, 0, 0) - expected).abs()
        worst = float((error.amax(1) / expected.abs().amax(1)).max())
        yield f"| {kind} | " + " | ".join(f"{each:.1%}" for each in ways) + f" | {worst:.1e} |"


def forward(small: bool) -> Iterator[str]:
    """A step at the released width: eager, compiled, fp8 and streamed weights over plain eager and the floor."""
    return gpu.table(small)
