"""The LoRA loader in the real host: every format equals merging by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from framepack.models.hunyuan import BACKBONE
from framepack.shapes.generate import Builtin
from framepack.training.adapters import adapt, write_lora
from framepack.training.config import Lora as LoraSettings
from tests.host.conftest import Graph, newest_latents
from tests.host.test_loading import BUILTIN, folder, metadata, relative, weights  # noqa: F401 - fixtures
from tools.client import QueueError
from tools.host import Host

STRENGTH, RANK, ALPHA = 0.7, 4, 2.0
LAYERS = ("transformer_blocks.1.attn.to_q", "transformer_blocks.1.attn.to_k", "transformer_blocks.1.attn.to_v")


@pytest.fixture(scope="module")
def loras(host: Host) -> Iterator[Path]:
    path = host.base / "models" / "loras"
    path.mkdir(parents=True, exist_ok=True)
    yield path


def sampled(host: Host, name: str, lora: str | None, prefix: str, stock: bool = False) -> tuple[Tensor, str]:
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=name, weight_dtype="fp32")
    if lora and stock:
        model = graph.add("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=STRENGTH)
    elif lora:
        model = graph.add("FramePackLoraLoader", model=model, lora_name=lora, strength=STRENGTH)
    return latents(host, graph, model, prefix)


def latents(host: Host, graph: Graph, model: list, prefix: str) -> tuple[Tensor, str]:
    """Latents of a few steps, and what the second node says."""
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    text = graph.add("CLIPTextEncode", clip=clip, text="a green square moves up")
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    names = {"seed": 3, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    samples = graph.add("KSampler", model=model, positive=text, negative=text, latent_image=latent, **names)
    graph.add("SaveLatent", samples=samples, filename_prefix=prefix)
    done = graph.queue(host)
    return newest_latents(host, prefix), done.outputs.get("2", {}).get("text", [""])[0]


@pytest.fixture(scope="module")
def factors() -> tuple[Tensor, Tensor]:
    """A and B of one LoRA on a fused q, k, v of block 1."""
    torch.manual_seed(5)
    return torch.randn(RANK, 128) * 0.2, torch.randn(3 * 128, RANK) * 0.2


@pytest.fixture(scope="module")
def merged(host: Host, folder: Path, weights, metadata, factors) -> tuple[Tensor, Tensor]:  # noqa: F811
    """Latents with the LoRA merged by hand, and without it."""
    down, up = factors
    full = {k: v.float() for k, v in weights.items()}
    for i, layer in enumerate(LAYERS):
        delta = up[128 * i : 128 * (i + 1)] @ down * (STRENGTH * ALPHA / RANK)
        full[f"{layer}.weight"] = full[f"{layer}.weight"] + delta
    save_file(full, folder / "merged.safetensors", metadata)
    return sampled(host, "merged.safetensors", None, "merged")[0], sampled(host, BUILTIN.name, None, "plain")[0]


def split(factors: tuple[Tensor, Tensor], name: str, up: str, down: str) -> dict[str, Tensor]:
    a, b = factors
    found = {}
    for i, layer in enumerate(LAYERS):
        module = name.format(layer, layer.replace(".", "_"))
        found |= {f"{module}.{down}": a.clone(), f"{module}.{up}": b[128 * i : 128 * (i + 1)].clone()}
        found[f"{module}.alpha"] = torch.tensor(ALPHA)
    return found


def fused(factors: tuple[Tensor, Tensor], name: str, up: str, down: str) -> dict[str, Tensor]:
    a, b = factors
    return {f"{name}.{down}": a, f"{name}.{up}": b, f"{name}.alpha": torch.tensor(ALPHA)}


AB, UD = ("lora_B.weight", "lora_A.weight"), ("lora_up.weight", "lora_down.weight")


def stated_in_the_header(factors: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """As diffusers saves it: no tensor holds an alpha."""
    return {key: tensor for key, tensor in split(factors, "transformer.{0}", *AB).items() if "alpha" not in key}


HEADER = {"lora_adapter_metadata": f'{{"transformer.r": {RANK}, "transformer.lora_alpha": {ALPHA}}}'}
FORMATS = {
    "header": stated_in_the_header,
    "Hunyuan_video_I2V_lora": lambda f: fused(f, "Hunyuan_video_I2V_lora_double_blocks_1_img_attn_qkv", *UD),
    "bare": lambda f: split(f, "{0}", *AB),
    "transformer": lambda f: split(f, "transformer.{0}", *AB),
    "base_model.model": lambda f: split(f, "base_model.model.{0}", *AB),
    "diffusion_model": lambda f: split(f, "diffusion_model.{0}", *UD),
    "lora_unet": lambda f: split(f, "lora_unet_{1}", *UD),
    "lora_transformer": lambda f: split(f, "lora_transformer_{1}", *UD),
    "lycoris": lambda f: split(f, "lycoris_{1}", *UD),
    "original": lambda f: fused(f, "double_blocks.1.img_attn_qkv", *AB),
    "original in diffusion_model": lambda f: fused(f, "diffusion_model.double_blocks.1.img_attn_qkv", *UD),
    "comfy": lambda f: fused(f, "diffusion_model.double_blocks.1.img_attn.qkv", *UD),
    "kohya original": lambda f: fused(f, "lora_unet_double_blocks_1_img_attn_qkv", *UD),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lora_equals_merging_by_hand(host: Host, loras: Path, factors, merged, kind: str):
    name = kind.replace(" ", "_") + ".safetensors"
    save_file(FORMATS[kind](factors), loras / name, HEADER if kind == "header" else None)
    by_hand, plain = merged
    got, said = sampled(host, BUILTIN.name, name, f"lora_{kind.replace(' ', '_')}")
    assert relative(got, by_hand) < 1e-4
    assert relative(plain, by_hand) > 1e-2
    assert said == f"{name}: 3 layers changed"


def test_the_stock_loader_works_too(host: Host, loras: Path, factors, merged):
    save_file(FORMATS["lora_unet"](factors), loras / "stock.safetensors")
    assert relative(sampled(host, BUILTIN.name, "stock.safetensors", "stock", stock=True)[0], merged[0]) < 1e-4


def test_a_lora_that_training_wrote_is_the_same_in_the_stock_loader_and_in_ours(host: Host, loras: Path):
    dit = Builtin.load().dit
    adapters = adapt(dit, LoraSettings(rank=4), BACKBONE.in_fp8, 0)
    torch.manual_seed(1)
    trained = {
        f"{name}.lora_{side}.weight": torch.randn_like(getattr(adapter, f"lora_{side}").weight) * 0.1
        for name, adapter in adapters.items()
        for side in "AB"
    }
    (loras / "trained.safetensors").unlink(missing_ok=True)
    write_lora(loras / "trained.safetensors", adapters, trained, "transformer.")
    ours, said = sampled(host, BUILTIN.name, "trained.safetensors", "trained")
    assert said == f"trained.safetensors: {len(adapters)} layers changed"
    stock = sampled(host, BUILTIN.name, "trained.safetensors", "trained_stock", stock=True)[0]
    assert relative(stock, ours) < 1e-4
    assert relative(sampled(host, BUILTIN.name, None, "untrained")[0], ours) > 1e-2


@pytest.mark.parametrize("dtype", ["fp32", "fp8_e4m3fn_scaled"])
def test_a_lora_is_the_same_where_layers_are_streamed(host: Host, loras: Path, factors, merged, dtype: str):
    """Streamed layers are patched while they are cast, resident ones before."""
    save_file(FORMATS["bare"](factors), loras / "streamed.safetensors")
    found = []
    for streamed in (False, True):
        graph = Graph()
        model = graph.add("LoadFramePackModel", model_name=BUILTIN.name, weight_dtype=dtype)
        model = graph.add("FramePackLoraLoader", model=model, lora_name="streamed.safetensors", strength=STRENGTH)
        model = graph.add("StandInModel", model=model, plain=False, offload=streamed)
        found.append(latents(host, graph, model, f"streamed_{dtype}")[0])
    resident, offloaded = found
    assert relative(offloaded, resident) < (1e-6 if dtype == "fp32" else 0.05)
    assert relative(offloaded, merged[0]) < relative(merged[1], merged[0])


def test_lokr_is_the_hosts(host: Host, loras: Path):
    module = "lycoris_" + LAYERS[0].replace(".", "_")
    save_file(
        {f"{module}.lokr_w1": torch.eye(2), f"{module}.lokr_w2": torch.randn(64, 64) * 0.1}, loras / "k.safetensors"
    )
    assert sampled(host, BUILTIN.name, "k.safetensors", "lokr")[1] == "k.safetensors: 1 layer changed"


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"lora_te_layers_0.lora_up.weight": torch.zeros(3, 4)}, "none of its 1 tensors belongs to this model"),
        (
            {f"{LAYERS[0]}.lora_B.weight": torch.zeros(96, 4), f"{LAYERS[0]}.lora_A.weight": torch.zeros(4, 96)},
            "96 rows.*128.*another model",
        ),
    ],
    ids=["matches nothing", "another width"],
)
def test_a_lora_for_another_model_is_refused(host: Host, loras: Path, tensors, words: str):
    save_file(tensors, loras / "other.safetensors")
    with pytest.raises(QueueError, match=rf"FramePackLoraLoader.*other\.safetensors.*{words}"):
        sampled(host, BUILTIN.name, "other.safetensors", "other")
