"""FramePackLoadModel in the real host: every layout and precision of a file, on the built-in model's weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.host.conftest import Graph, newest_latents
from tools.client import QueueError
from tools.host import REPO, Host

ROWS = "fp8_e4m3fn_scaled"
BUILTIN = REPO / "framepack" / "shapes" / "assets" / "diffusion_models" / "framepack_shapes_dit.safetensors"
IN_BLOCKS = ("attn.to", "attn.add", "ff.net", "ff_context.net", "proj_mlp", "blocks.0.proj_out", "blocks.1.proj_out")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return load_file(BUILTIN)


@pytest.fixture(scope="module")
def metadata() -> dict[str, str]:
    with safe_open(BUILTIN, "pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def folder(host: Host) -> Iterator[Path]:
    path = host.base / "models" / "diffusion_models"
    path.mkdir(parents=True, exist_ok=True)
    yield path
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()


def sampled(host: Host, name: str, prefix: str, **options: str) -> tuple[Tensor, str]:
    """Latents of a few steps with a checkpoint, and what the loader said of it."""
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=name, **options)
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    text = graph.add("CLIPTextEncode", clip=clip, text="a blue circle moves slowly to the left")
    latent = graph.add("EmptyHunyuanLatentVideo", width=64, height=64, length=33, batch_size=1)
    names = {"seed": 3, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    samples = graph.add("KSampler", model=model, positive=text, negative=text, latent_image=latent, **names)
    graph.add("SaveLatent", samples=samples, filename_prefix=prefix)
    done = graph.queue(host)
    return newest_latents(host, prefix), done.outputs.get("1", {}).get("text", [""])[0]


@pytest.fixture(scope="module")
def expected(host: Host) -> Tensor:
    return sampled(host, BUILTIN.name, "expected")[0]


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def quantized(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Scaled fp8 as the host writes it: a scale beside every matrix, and a marker, never filled and so often NaN."""
    found: dict[str, Tensor] = {"scaled_fp8": torch.full((2,), math.nan).to(dtype)}
    for key, tensor in weights.items():
        if key.endswith(".weight") and tensor.ndim == 2:
            scale = tensor.float().abs().max() / torch.finfo(dtype).max
            found[key] = (tensor.float() / scale).to(dtype)
            found[key.removesuffix("weight") + "scale_weight"] = scale
        else:
            found[key] = tensor.float()
    return found


def in_fp8(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Plain fp8: the matrices of the blocks, unscaled."""
    held = {k for k, v in weights.items() if v.ndim == 2 and any(name in k for name in IN_BLOCKS)}
    return {k: v.to(dtype) if k in held else v for k, v in weights.items()}


# What is done to the weights, and between which relative errors of the latents that must lie.
LAYOUTS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], float, float]] = {
    "transformer-prefix": (lambda w: {f"transformer.{k}": v for k, v in w.items()}, 0, 1e-6),
    "model-prefix": (lambda w: {f"model.diffusion_model.{k}": v for k, v in w.items()}, 0, 1e-6),
    "fp32": (lambda w: {k: v.float() for k, v in w.items()}, 0, 1e-4),
    "bf16": (lambda w: {k: v.bfloat16() for k, v in w.items()}, 1e-5, 0.05),
    "e4m3": (lambda w: in_fp8(w, torch.float8_e4m3fn), 1e-5, 0.2),
    "e5m2": (lambda w: in_fp8(w, torch.float8_e5m2), 1e-5, 0.4),
    "scaled-e4m3": (lambda w: quantized(w, torch.float8_e4m3fn), 1e-5, 0.2),
    "scaled-e5m2": (lambda w: quantized(w, torch.float8_e5m2), 1e-5, 0.4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_loads_in_every_layout(host: Host, folder: Path, weights, metadata, expected, layout: str):
    change, least, most = LAYOUTS[layout]
    save_file(change(weights), folder / f"{layout}.safetensors", metadata)
    got, said = sampled(host, f"{layout}.safetensors", layout)
    assert least <= relative(got, expected) <= most
    assert f"{layout}.safetensors: 2 + 5 blocks, 128 wide, kernels k1, k2, k4" in said


def test_the_hosts_quantized_layers_load(host: Host, folder: Path, weights, metadata, expected):
    """The format that the host states in metadata: fp8 layers by name, each with its scale."""
    changed, layers = {k: v.bfloat16() for k, v in weights.items()}, {}
    for key in [k for k in weights if ".ff.net" in k and k.endswith(".weight")]:
        scale = weights[key].float().abs().max() / 448
        layer = key.removesuffix(".weight")
        changed[key] = (weights[key].float() / scale).to(torch.float8_e4m3fn)
        changed[f"{layer}.weight_scale"] = scale
        layers[layer] = {"format": "float8_e4m3fn", "params": {}}
    stated = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file(changed, folder / "quantized.safetensors", metadata | stated)
    got, _ = sampled(host, "quantized.safetensors", "quantized")
    assert 1e-5 <= relative(got, expected) <= 0.2


def test_custom_operations_are_accepted(host: Host, expected):
    graph = Graph()
    graph.add("StandInOperations", path=str(BUILTIN))
    done = graph.queue(host)
    assert done.outputs["1"]["text"] == ["StandInLinear"]


def test_a_folder_of_shards_loads_and_its_shards_are_not_offered(host: Host, folder: Path, weights, metadata, expected):
    (folder / "Sharded_F1").mkdir()
    keys = sorted(weights)
    names = [f"model-0000{i + 1}-of-00003.safetensors" for i in range(3)]
    for i, name in enumerate(names):
        save_file({k: weights[k] for k in keys[i::3]}, folder / "Sharded_F1" / name, metadata)
    index = {"metadata": {}, "weight_map": {k: names[j % 3] for j, k in enumerate(keys)}}
    (folder / "Sharded_F1" / "model.safetensors.index.json").write_text(json.dumps(index))
    offered = host.get("/object_info/FramePackLoadModel")["FramePackLoadModel"]["input"]["required"]["model_name"]
    assert "Sharded_F1/" in str(offered)
    assert "of-00003" not in str(offered)
    got, said = sampled(host, "Sharded_F1/", "shards")
    assert relative(got, expected) < 1e-6
    assert "for forward order" in said


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-4), ("bf16", 0.05), ("fp8_e4m3fn", 0.2), ("fp8_e5m2", 0.4)])
def test_weights_are_cast_when_it_is_asked_for(host: Host, expected, dtype: str, bound: float):
    got, said = sampled(host, BUILTIN.name, f"cast_{dtype}", weight_dtype=dtype)
    assert relative(got, expected) <= bound
    assert {"fp32": "float32", "bf16": "bfloat16"}.get(dtype, dtype.replace("fp8", "float8")) in said


def test_a_scale_for_each_row_is_nearer_than_plain_fp8(host: Host, folder: Path, weights, metadata):
    """Small weights, as a released model has them: most are below what plain fp8 can tell from zero."""
    small = {k: v.float() / (16 if k.endswith("weight") and v.ndim == 2 else 1) for k, v in weights.items()}
    save_file(small, folder / "small.safetensors", metadata)
    exact, _ = sampled(host, "small.safetensors", "small")
    plain, _ = sampled(host, "small.safetensors", "small_plain", weight_dtype="fp8_e4m3fn")
    scaled, said = sampled(host, "small.safetensors", "small_scaled", weight_dtype="fp8_e4m3fn_scaled")
    assert "float8_e4m3fn with a scale for each row" in said
    assert 0 < relative(scaled, exact) < relative(plain, exact)


def test_scaled_rows_take_a_lora_and_are_saved_with_their_scales(host: Host, folder: Path, weights, metadata):
    layer = "transformer_blocks.1.attn.to_q"
    out, inner = weights[f"{layer}.weight"].shape
    torch.manual_seed(1)
    down, up = torch.randn(4, inner) * 0.2, torch.randn(out, 4) * 0.2
    loras = host.base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, loras / "rows.safetensors")
    merged = {k: v.float() for k, v in weights.items()}
    merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + up @ down
    save_file(merged, folder / "merged_rows.safetensors", metadata)
    by_hand, _ = sampled(host, "merged_rows.safetensors", "rows_by_hand", weight_dtype=ROWS)
    without, _ = sampled(host, BUILTIN.name, "rows_without", weight_dtype=ROWS)
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=BUILTIN.name, weight_dtype=ROWS)
    model = graph.add("FramePackLoraLoader", model=model, lora_name="rows.safetensors", strength=1.0)
    graph.add("ModelSave", model=model, filename_prefix="rows")
    graph.queue(host)
    (file,) = sorted((host.base / "output").glob("rows_*.safetensors"))[-1:]
    save_file(load_file(file), folder / "rows.safetensors", metadata)
    got, said = sampled(host, "rows.safetensors", "rows_saved")
    assert "with a scale for each row" in said
    assert relative(got, by_hand) < relative(without, by_hand)


def test_scaled_weights_are_not_scaled_again(host: Host, folder: Path, weights, metadata):
    save_file(quantized(weights, torch.float8_e4m3fn), folder / "twice.safetensors", metadata)
    with pytest.raises(QueueError, match="twice.safetensors: its weights have scales already"):
        sampled(host, "twice.safetensors", "twice", weight_dtype=ROWS)


def test_an_attention_of_ones_choice_gives_the_same(host: Host, expected):
    assert relative(sampled(host, BUILTIN.name, "sdpa", attention="sdpa")[0], expected) < 1e-4


@pytest.mark.parametrize("name", ["sage", "flash"])
def test_a_missing_attention_package_is_said_at_once(host: Host, name: str):
    from importlib.util import find_spec

    package = {"sage": "sageattention", "flash": "flash_attn"}[name]
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(QueueError, match=f"{package} was asked for, which is not installed: pip install"):
        sampled(host, BUILTIN.name, "missing", attention=name)
    assert host.alive


def broken(weights: dict[str, Tensor], key: str, tensor: Tensor) -> dict[str, Tensor]:
    return {**weights, key: tensor}


NORM, QUERY = "transformer_blocks.0.attn.norm_q.weight", "transformer_blocks.1.attn.to_q.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {"input_blocks.0.0.weight": torch.zeros(4, 4)}, "looks like Stable Diffusion.*no FramePack model"),
        (lambda w: {"time_projection.1.weight": torch.zeros(4, 4)}, "a Wan 2.1 model under its original names"),
        (lambda w: {k: v for k, v in w.items() if "clean" not in k}, "no packing layers"),
        (lambda w: broken(w, QUERY, torch.zeros(3, 128)), rf"{QUERY} is \(3, 128\); expected \(128, 128\)"),
        (lambda w: {k: v for k, v in w.items() if k != QUERY}, "1 tensors are missing, such as transformer_blocks.1"),
        (lambda w: broken(w, QUERY, torch.full((128, 128), float("nan"))), f"{QUERY} holds values that are not finite"),
    ],
    ids=["another model's", "unconverted", "unpacked", "a wrong shape", "one missing", "not a number"],
)
def test_a_bad_file_is_refused_by_name(host: Host, folder: Path, weights, metadata, change, words: str):
    save_file(change(weights), folder / "bad.safetensors", metadata)
    with pytest.raises(QueueError, match=rf"FramePackLoadModel.*bad\.safetensors.*{words}"):
        sampled(host, "bad.safetensors", "bad")
    assert host.alive


def test_a_shard_that_is_missing_is_named(host: Host, folder: Path):
    (folder / "gap").mkdir()
    (folder / "gap" / "m.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(QueueError, match=r"gap: the shard gone\.safetensors is missing"):
        sampled(host, "gap/", "gap")
