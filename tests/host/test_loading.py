"""FramePackLoadModel in the real host: every layout and precision of a file, on the built-in model's weights."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from tests.host.conftest import Graph, files_of, newest_latents
from tools.client import QueueError
from tools.host import REPO, Host, comfyui_folder, interpreter

ROWS = "fp8_e4m3fn_scaled"
BUILTIN = REPO / "framepack" / "shapes" / "assets" / "diffusion_models" / "framepack_shapes_dit.safetensors"
TEXT = BUILTIN.parents[1] / "text_encoders" / "framepack_shapes_text.safetensors"
WORDS = {"framepack.vocabulary": '{"words": ["a"], "num_tokens": 20}'}
CUT = (
    TEXT.read_bytes()[:-1000],
    save({"words.weight": torch.zeros(3, 4)}, {"framepack.vocabulary": "[3]"}),
    save({"words.weight": torch.zeros(3, 4)}),
    save({"words.weight": torch.zeros(())}, WORDS),
)
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
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()


def sampled(host: Host, name: str, prefix: str, lora: str = "", **options: str) -> tuple[Tensor, str]:
    """Latents of a few steps with a checkpoint, and what the loader said of it."""
    graph = Graph()
    model = graph.add("FramePackLoadModel", model_name=name, **options)
    if lora:
        model = graph.add("FramePackLoraLoader", model=model, lora_name=lora, strength=1.0)
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


def quantized(
    weights: dict[str, Tensor], dtype: torch.dtype, name: str = "scale_weight", marker: bool = True, rows: bool = False
) -> dict[str, Tensor]:
    """Scaled fp8 as packs write it: a scale beside every matrix, and a marker, never filled and so often NaN."""
    found: dict[str, Tensor] = {"scaled_fp8": torch.full((2,), math.nan).to(dtype)} if marker else {}
    for key, tensor in weights.items():
        if key.endswith(".weight") and tensor.ndim == 2:
            largest = tensor.float().abs().amax(1, keepdim=True) if rows else tensor.float().abs().max()
            scale = largest / torch.finfo(dtype).max
            found[key] = (tensor.float() / scale).to(dtype)
            found[f"{key.removesuffix('weight')}{name}"] = scale
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
    "unmarked": (lambda w: quantized(w, torch.float8_e4m3fn, marker=False), 1e-5, 0.2),
    "named-otherwise": (lambda w: quantized(w, torch.float8_e4m3fn, "weight_scale"), 1e-5, 0.2),
    "named-otherwise-unmarked": (lambda w: quantized(w, torch.float8_e5m2, "weight_scale", False), 1e-5, 0.4),
    "rows": (lambda w: quantized(w, torch.float8_e4m3fn, "weight_scale", True, True), 1e-5, 0.2),
    "rows-unmarked": (lambda w: quantized(w, torch.float8_e4m3fn, "scale_weight", False, True), 1e-5, 0.2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_loads_in_every_layout(host: Host, folder: Path, weights, metadata, expected, layout: str):
    change, least, most = LAYOUTS[layout]
    save_file(change(weights), folder / f"{layout}.safetensors", metadata)
    logged = len(host.log_text())
    got, said = sampled(host, f"{layout}.safetensors", layout)
    assert "doesn't exist" not in host.log_text()[logged:]  # attributes that this host does not have
    assert least <= relative(got, expected) <= most
    assert f"{layout}.safetensors: 2 + 5 blocks, 128 wide, kernels k1, k2, k4" in said


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=["e4m3", "e5m2"])
@pytest.mark.parametrize("stated_in", ["metadata", "tensors"])
def test_float8_in_the_hosts_format_loads(host: Host, folder: Path, weights, metadata, expected, stated_in, dtype):
    """Layers that are stated by name, each with its scale, in the metadata or in tensors."""
    changed, layers = {k: v.bfloat16() for k, v in weights.items()}, {}
    for key in [k for k in weights if ".ff.net" in k and k.endswith(".weight")]:
        scale = weights[key].float().abs().max() / torch.finfo(dtype).max
        layer = key.removesuffix(".weight")
        changed[key] = (weights[key].float() / scale).to(dtype)
        changed[f"{layer}.weight_scale"] = scale
        layers[layer] = {"format": str(dtype).removeprefix("torch."), "params": {}}
    stated = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    if stated_in == "tensors":
        for layer, text in layers.items():
            changed[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(text).encode()), dtype=torch.uint8)
        stated = {}
    name = f"stated_{stated_in}_{dtype.itemsize}.safetensors"
    save_file(changed, folder / name, metadata | stated)
    got, _ = sampled(host, name, "stated")
    assert 1e-5 <= relative(got, expected) <= (0.2 if dtype is torch.float8_e4m3fn else 0.4)


def test_a_format_that_the_host_lacks_is_refused_by_name(host: Host, folder: Path, weights, metadata):
    layer = QUERY.removesuffix(".weight")
    stated = torch.tensor(list(b'{"format": "of_another_time"}'), dtype=torch.uint8)
    save_file({**weights, f"{layer}.comfy_quant": stated}, folder / "newer.safetensors", metadata)
    with pytest.raises(QueueError, match=rf"newer\.safetensors.*{layer}.*of_another_time"):
        sampled(host, "newer.safetensors", "newer")


# Quantized by the host's own functions, in the host's Python: every format that it has.
QUANTIZE = """
import json, sys, torch
from safetensors.torch import load_file, save, save_file
sys.argv, (source, target, name) = sys.argv[:1] + ["--cpu"], sys.argv[1:]
import comfy.options
comfy.options.enable_args_parsing()
import comfy.quant_ops as q
layout = q.QUANT_ALGOS[name]["comfy_tensor_layout"]
out = {}
for key, w in load_file(source).items():
    layer = key.removesuffix(".weight")
    if key == f"{layer}.weight" and w.ndim == 2 and ".ff" in key:
        scale = {"scale": "recalculate"} if name.startswith(("float8", "nvfp4")) else {}
        held = q.QuantizedTensor.from_float(w.float(), layout, **scale)
        out |= {k: v.contiguous() for k, v in held.state_dict(key).items()}
        out[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps({"format": name}).encode()), dtype=torch.uint8)
    else:
        out[key] = w
save_file(out, target)
"""


@pytest.mark.parametrize(
    ("name", "bound"), [("float8_e4m3fn", 0.2), ("nvfp4", 0.6), ("mxfp8", 0.2), ("int8_tensorwise", 0.2)]
)
def test_what_the_hosts_own_quantizer_writes_loads(
    host: Host, folder: Path, metadata, expected, name: str, bound: float
):
    file = quantized_by_the_host(folder, metadata, name)
    got, said = sampled(host, file.name, f"host_{name}")
    assert 1e-5 <= relative(got, expected) <= bound
    assert name in said


@pytest.mark.parametrize(("name", "part"), [("float8_e4m3fn", 0.5), ("nvfp4", 1.0), ("int8_tensorwise", 0.5)])
def test_a_lora_applies_to_the_hosts_own_formats(host: Host, folder: Path, weights, metadata, name: str, part: float):
    file, layer = quantized_by_the_host(folder, metadata, name), "transformer_blocks.1.ff.net.2"
    out, inner = weights[f"{layer}.weight"].shape
    torch.manual_seed(1)
    down, up = torch.randn(4, inner) * 0.2, torch.randn(out, 4) * 0.2
    loras = host.base / "models" / "loras"
    loras.mkdir(exist_ok=True)
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, loras / "formats.safetensors")
    merged = {k: v.float() for k, v in weights.items()}
    merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + up @ down
    save_file(merged, folder / "merged_formats.safetensors", metadata)
    by_hand = sampled(host, "merged_formats.safetensors", "formats_by_hand")[0]
    without = sampled(host, file.name, "formats_without")[0]
    got = sampled(host, file.name, "formats_lora", lora="formats.safetensors")[0]
    assert relative(got, by_hand) < part * relative(without, by_hand)  # four bits are coarse


def quantized_by_the_host(folder: Path, metadata: dict[str, str], name: str) -> Path:
    """A file that the host's own quantizer has written; skips where the host has none."""
    comfyui, file = comfyui_folder(), folder / f"host_{name}.safetensors"
    if not hosts_formats(comfyui):
        pytest.skip("this host quantizes nothing itself")
    command = [interpreter(comfyui), "-c", QUANTIZE, str(BUILTIN), str(file), name]
    done = subprocess.run(command, cwd=comfyui, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    save_file(load_file(file), file, metadata)
    return file


def hosts_formats(comfyui: Path) -> bool:
    return "detect_layer_quantization" in (comfyui / "comfy" / "utils.py").read_text()


@pytest.mark.parametrize("dtype", ["default", "bf16"])
def test_a_saved_model_is_the_same_model(host: Host, folder: Path, weights, expected, dtype: str):
    """ModelSave writes its own metadata; what shapes cannot tell stays with the model."""
    graph = Graph()
    model = graph.add("LoadFramePackModel", model_name=BUILTIN.name, weight_dtype=dtype)
    graph.add("ModelSave", model=model, filename_prefix=f"saved_{dtype}")
    graph.queue(host)
    (file,) = files_of(host, f"saved_{dtype}", ".safetensors")
    shutil.copyfile(file, folder / file.name)
    got, _ = sampled(host, file.name, f"saved_again_{dtype}")
    assert relative(got, expected) <= (1e-6 if dtype == "default" else 0.05)


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
    assert "float8_e4m3fn with scales" in said
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
    (file,) = files_of(host, "rows", ".safetensors")[-1:]
    shutil.copyfile(file, folder / "rows.safetensors")
    got, said = sampled(host, "rows.safetensors", "rows_saved")
    assert "with scales" in said
    assert relative(got, by_hand) < relative(without, by_hand)


@pytest.mark.parametrize(
    ("dtype", "said"), [(ROWS, "float8_e4m3fn with scales"), ("bf16", "bfloat16"), ("fp32", "float32")]
)
def test_scaled_weights_load_in_other_precisions(host: Host, folder: Path, weights, metadata, expected, dtype, said):
    save_file(quantized(weights, torch.float8_e4m3fn), folder / "again.safetensors", metadata)
    got, description = sampled(host, "again.safetensors", "again", weight_dtype=dtype)
    assert 1e-5 <= relative(got, expected) <= 0.2
    assert said in description


@pytest.mark.parametrize("kind", ["plain", "scaled", "stated"])
def test_fp8_is_widened_on_a_device_that_cannot_hold_it(host: Host, folder: Path, weights, metadata, kind: str):
    changed = in_fp8(weights, torch.float8_e4m3fn) if kind == "plain" else quantized(weights, torch.float8_e4m3fn)
    if kind == "stated":
        changed = {k.replace("scale_weight", "weight_scale"): v for k, v in changed.items() if k != "scaled_fp8"}
        stated = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
        changed |= {
            k.replace("weight_scale", "comfy_quant"): stated.clone() for k in changed if k.endswith("weight_scale")
        }
    save_file(changed, folder / f"narrow_{kind}.safetensors", metadata)
    graph = Graph()
    graph.add("StandInWithoutFP8", path=str(folder / f"narrow_{kind}.safetensors"))
    (said,) = graph.queue(host).outputs["1"]["text"]
    assert "float8" not in said
    assert "float" in said


def test_an_attention_of_ones_choice_gives_the_same(host: Host, expected):
    assert relative(sampled(host, BUILTIN.name, "sdpa", attention="sdpa")[0], expected) < 1e-4


@pytest.mark.parametrize("name", ["sage", "flash"])
def test_a_missing_attention_package_is_named(host: Host, name: str):
    from importlib.util import find_spec

    package = {"sage": "sageattention", "flash": "flash_attn"}[name]
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(QueueError, match=f"{package} is not installed.*pip install"):
        sampled(host, BUILTIN.name, "missing", attention=name)
    assert host.alive


def broken(weights: dict[str, Tensor], key: str, tensor: Tensor) -> dict[str, Tensor]:
    return {**weights, key: tensor}


NORM, QUERY = "transformer_blocks.0.attn.norm_q.weight", "transformer_blocks.1.attn.to_q.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {"input_blocks.0.0.weight": torch.zeros(4, 4)}, "no FramePack model.*looks like Stable Diffusion"),
        (lambda w: {"time_projection.1.weight": torch.zeros(4, 4)}, "a Wan 2.1 model under its original names"),
        (lambda w: {k: v for k, v in w.items() if "clean" not in k}, "no packing layers"),
        (lambda w: broken(w, QUERY, torch.zeros(3, 128)), rf"{QUERY}.*\(128, 128\).*\(3, 128\)"),
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
    save_file({"a": torch.zeros(1)}, folder / "gap" / "here.safetensors")
    index = {"weight_map": {"a": "here.safetensors", "b": "gone.safetensors"}}
    (folder / "gap" / "m.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(QueueError, match=r"gap: gone\.safetensors is missing"):
        sampled(host, "gap/", "gap")


def test_a_link_to_a_folder_of_shards_is_listed_in_place_of_its_shards(
    host: Host, folder: Path, weights, metadata, expected
):
    """And a file beside the shards that the index does not name stays in the list."""
    away = host.base / "elsewhere"
    away.mkdir()
    keys = sorted(weights)
    names = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for i, name in enumerate(names):
        save_file({k: weights[k] for k in keys[i::2]}, away / name, metadata)
    save_file(weights, away / "single.safetensors", metadata)
    index = {"weight_map": {k: names[j % 2] for j, k in enumerate(keys)}}
    (away / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "linked").symlink_to(away, target_is_directory=True)
    offered = str(host.get("/object_info/LoadFramePackModel")["LoadFramePackModel"]["input"]["required"]["model_name"])
    assert "'linked/'" in offered
    assert "linked/single.safetensors" in offered
    assert "of-00002" not in offered
    assert relative(sampled(host, "linked/", "linked")[0], expected) < 1e-6


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x10" + bytes(7) + b"{",
        (2**62).to_bytes(8, "little") + b"{}",
        *CUT,
    ],
    ids=["empty", "short", "cut in its header", "a huge header", "cut", "odd vocabulary", "no vocabulary", "scalars"],
)
def test_a_broken_text_encoder_is_refused_by_name(host: Host, folder: Path, content: bytes):
    encoders = host.base / "models" / "text_encoders"
    encoders.mkdir(exist_ok=True)
    (encoders / "broken.safetensors").write_bytes(content)
    graph = Graph()
    clip = graph.add("LoadFramePackTextEncoder", text_encoder_name="broken.safetensors")
    graph.add("CLIPTextEncode", clip=clip, text="a")
    graph.add("PreviewAny", source=["2", 0])
    with pytest.raises(QueueError, match=r"LoadFramePackTextEncoder.*broken\.safetensors"):
        graph.queue(host)
