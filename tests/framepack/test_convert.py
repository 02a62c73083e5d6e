"""Checkpoints of every backbone become FramePack ones, and back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from framepack.checkpoints.convert import convert, restore
from framepack.cli import main
from framepack.errors import CheckpointError
from framepack.models.names import KeyMap
from framepack.models.wan import WanDiT, WanSpec
from framepack.packing.kernels import LAYER_NAMES
from tests.backbones import SMALL, Small

Weights = dict[str, Tensor]
PLAIN = [small for small in SMALL if small.backbone.original]  # those that exist without packing layers


def plain_of(small: Small) -> Weights:
    """A model before conversion, with diffusers' names: no packing layers."""
    weights = small.model(seed=3).state_dict()
    return {k: v.bfloat16() for k, v in weights.items() if not k.startswith("clean_x_embedder")}


def original(plain: Weights, names: KeyMap) -> Weights:
    """The same model under the release's names, fused as the release fuses."""
    found = {}
    for pattern, fused in names.layers.items():
        for number in range(3) if "#" in pattern else [0]:
            for part in (".weight", ".bias", ""):
                keys = [f"{n.replace('#', str(number))}{part}" for n in fused.names]
                if all(key in plain for key in keys):
                    whole = torch.cat([plain[key] for key in keys]) if len(keys) > 1 else plain[keys[0]]
                    whole = torch.cat(whole.chunk(2)[::-1]) if fused.swap else whole
                    found[f"{pattern.replace('#', str(number))}{part}"] = whole
    return found


# HunyuanVideo's original names, and what ComfyUI's single files say in their place; Wan's are the same in both.
COMFY = (
    *(("_attn_qkv", "_attn.qkv"), ("_attn_proj", "_attn.proj"), ("_mod.linear", "_mod.lin")),
    *(("_attn_q_norm", "_attn.norm.query_norm"), ("_attn_k_norm", "_attn.norm.key_norm")),
    *((".q_norm", ".norm.query_norm"), (".k_norm", ".norm.key_norm"), ("modulation.linear", "modulation.lin")),
    *(("_mlp.fc1", "_mlp.0"), ("_mlp.fc2", "_mlp.2"), (".mlp.fc1", ".mlp.0"), (".mlp.fc2", ".mlp.2")),
    *(("time_in.mlp.0", "time_in.in_layer"), ("time_in.mlp.2", "time_in.out_layer")),
    *(("guidance_in.mlp.0", "guidance_in.in_layer"), ("guidance_in.mlp.2", "guidance_in.out_layer")),
    *(("t_embedder.mlp.0", "t_embedder.in_layer"), ("t_embedder.mlp.2", "t_embedder.out_layer")),
    *(("c_embedder.linear_1", "c_embedder.in_layer"), ("c_embedder.linear_2", "c_embedder.out_layer")),
)


def comfy(plain: Weights, names: KeyMap) -> Weights:
    """The same model as ComfyUI's single files spell it."""
    spelled = {}
    for key, tensor in original(plain, names).items():
        for theirs, spelling in COMFY if "img_in.proj" in names.layers else ():
            key = key.replace(theirs, spelling)
        key = key.replace("_norm.weight", "_norm.scale") if "ry_norm" in key or "key_norm" in key else key
        spelled[f"model.diffusion_model.{key}"] = tensor
    return spelled


SOURCES: dict[str, Callable[[Weights, KeyMap], Weights]] = {
    "diffusers": lambda plain, _: dict(plain),
    "original": original,
    "comfy": comfy,
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("small", PLAIN, ids=lambda small: small.name)
def test_a_checkpoint_is_converted_and_restored_bit_for_bit(small: Small, tmp_path: Path, kind: str):
    source, target, back = (tmp_path / f"{name}.safetensors" for name in ("source", "target", "back"))
    plain = plain_of(small)
    tensors = SOURCES[kind](plain, small.backbone.names)
    assert len(tensors) <= len(plain)
    save_file(tensors, source, {"format": "pt"})
    assert main(["convert", str(source), str(target)]) == 0
    converted = load_file(target)
    for key, tensor in plain.items():
        assert torch.equal(converted[key], tensor), key
    small.backbone.dit(small.spec).load_state_dict({k: v.float() for k, v in converted.items()})
    base = plain[f"{small.backbone.base}.weight"]
    assert torch.equal(converted["clean_x_embedder.proj.weight"], base)
    for name in LAYER_NAMES.values():
        made = converted[f"clean_x_embedder.{name}.weight"].float().sum((2, 3, 4))
        assert torch.allclose(made, base.float().sum((2, 3, 4)), atol=0.05)
    assert main(["convert", str(target), str(back), "--back"]) == 0
    restored = load_file(back)
    without = {k.removeprefix("model.diffusion_model."): v for k, v in tensors.items()}
    assert restored.keys() == without.keys()
    assert all(torch.equal(restored[k], v) for k, v in without.items())
    with safe_open(back, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_plain_wan_becomes_a_helios_and_is_restored(tmp_path: Path, kind: str):
    source, target, back = (tmp_path / f"{name}.safetensors" for name in ("source", "target", "back"))
    wan, helios = (next(small for small in SMALL if small.name == name) for name in ("wan-text", "helios"))
    tensors = SOURCES[kind](plain_of(wan), wan.backbone.names)
    save_file(tensors, source)
    assert main(["convert", str(source), str(target), "--as", "helios"]) == 0
    converted = load_file(target)
    spec = replace(helios.spec, key_scales=0)
    helios.backbone.dit(spec).load_state_dict({k: v.float() for k, v in converted.items()})
    assert main(["convert", str(target), str(back), "--back"]) == 0
    restored = load_file(back)
    without = {k.removeprefix("model.diffusion_model."): v for k, v in tensors.items()}
    assert restored.keys() == without.keys()
    assert all(torch.equal(restored[k], v) for k, v in without.items())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight"], "looks like Stable Diffusion 1, 2 or XL"),
        (["double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"], "looks like Flux"),
        (["transformer.patch_embed.proj.weight"], "looks like CogVideoX"),
        (["diffusion_model.blocks.0.ffn.0.lora_A.weight"], "looks like a LoRA"),
        (["some.other.weight"], "its first tensor is some.other.weight"),
    ],
)
def test_a_model_of_another_kind_is_refused_with_what_it_looks_like(tmp_path: Path, capsys, keys, words: str):
    other = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(4, 4) for key in keys}, other)
    assert main(["convert", str(other), str(tmp_path / "out.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "no Helios, HunyuanVideo or Wan 2.1 model" in said
    assert words in said
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("small", PLAIN, ids=lambda small: small.name)
def test_one_half_converted_is_refused(small: Small, tmp_path: Path):
    source, target = tmp_path / "half.safetensors", tmp_path / "out.safetensors"
    plain = plain_of(small)
    mixed = original(plain, small.backbone.names)
    save_file(mixed | {small.backbone.own: plain[small.backbone.own].clone()}, source)
    with pytest.raises(CheckpointError, match="half converted"):
        convert(source, target)
    save_file(mixed | {"transformer_blocks.0.attn.to_q.weight": torch.zeros(2, 2)}, source)
    with pytest.raises(CheckpointError, match=r"but has transformer_blocks\.0\.attn\.to_q\.weight"):
        convert(source, target)
    save_file({k: v for k, v in plain.items() if not k.startswith(small.backbone.base + ".bias")}, source)
    with pytest.raises(CheckpointError, match=f"has no {small.backbone.base}.bias"):
        convert(source, target)
    assert not target.exists()


def test_one_that_is_converted_is_refused(tmp_path: Path):
    source, target = tmp_path / "done.safetensors", tmp_path / "out.safetensors"
    save_file(SMALL[0].model().state_dict(), source)
    with pytest.raises(CheckpointError, match="a FramePack model already"):
        convert(source, target)


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path):
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    save_file(plain_of(SMALL[0]), source)
    target.write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="target.safetensors exists"):
        convert(source, target)
    assert target.read_bytes() == b"mine"
    with pytest.raises(CheckpointError, match="does not say what it was made from"):
        restore(source, tmp_path / "back.safetensors")


ANONYMOUS = """
import sys, threading, time
from pathlib import Path
from framepack.checkpoints.convert import convert
most, done = [0], threading.Event()
def watch():
    while not done.is_set():
        (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon")]
        most[0] = max(most[0], int(line.split()[1]) * 1024)
        time.sleep(0.005)
thread = threading.Thread(target=watch)
thread.start()
time.sleep(0.2)
before = most[0]
convert(Path(sys.argv[1]), Path(sys.argv[2]))
done.set()
thread.join()
print(most[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_conversion_holds_one_tensor_at_a_time(tmp_path: Path):
    """A Wan of 2 GB: far less than the file, and under the largest tensor plus 1 GB."""
    spec = WanSpec(heads=12, ffn_dim=8960, blocks=20)
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in WanDiT(spec).state_dict().items() if "clean_x" not in k}
    weights = {k: torch.zeros(shape, dtype=torch.bfloat16) for k, shape in shapes.items()}
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    save_file(weights, source)
    size, largest = source.stat().st_size, max(w.nbytes for w in weights.values())
    del weights
    command = [sys.executable, "-c", ANONYMOUS, str(source), str(target)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True).stdout
    assert size > 1.9e9
    assert int(said) < largest + 1e9
    assert int(said) < size / 4
