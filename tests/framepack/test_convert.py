"""HunyuanVideo checkpoints become FramePack ones, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from framepack.checkpoints.convert import convert, restore
from framepack.checkpoints.keymaps import HUNYUAN
from framepack.cli import main
from framepack.errors import CheckpointError
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec

SPEC = HunyuanSpec(
    **{"heads": 2, "head_dim": 16, "double_blocks": 2, "single_blocks": 3, "refiner_blocks": 1},
    text_dim=24,
    pooled_dim=12,
    image_dim=None,
    rope_axes=(4, 6, 6),
)


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    """A HunyuanVideo model with diffusers' names: no packing layers."""
    torch.manual_seed(0)
    weights = HunyuanDiT(SPEC).state_dict()
    return {k: torch.randn_like(v).bfloat16() for k, v in weights.items() if not k.startswith("clean_x_embedder")}


def original(plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same model under the original's names, fused as the original fuses."""
    found = {}
    counts = {"double_blocks": 2, "single_blocks": 3, "txt_in": 1}
    for pattern, fused in HUNYUAN.items():
        for number in range(counts.get(pattern.split(".")[0], 1) if "#" in pattern else 1):
            for part in ("weight", "bias"):
                names = [f"{n.replace('#', str(number))}.{part}" for n in fused.names]
                if all(name in plain for name in names):
                    found[f"{pattern.replace('#', str(number))}.{part}"] = torch.cat([plain[n] for n in names])
    for part in ("weight", "bias"):
        scale, shift = plain[f"norm_out.linear.{part}"].chunk(2)
        found[f"final_layer.adaLN_modulation.1.{part}"] = torch.cat([shift, scale])
    return found


# The original's names, and what ComfyUI's single files say in their place.
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


def comfy(plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same model as ComfyUI's single files spell it."""
    spelled = {}
    for key, tensor in original(plain).items():
        for theirs, spelling in COMFY:
            key = key.replace(theirs, spelling)
        key = key.replace("_norm.weight", "_norm.scale") if "ry_norm" in key or "key_norm" in key else key
        spelled[f"model.diffusion_model.{key}"] = tensor
    return spelled


SOURCES = {"diffusers": dict, "original": original, "comfy": comfy}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_checkpoint_is_converted_and_restored_bit_for_bit(plain, tmp_path: Path, kind: str):
    source, target, back = (tmp_path / f"{name}.safetensors" for name in ("source", "target", "back"))
    tensors = SOURCES[kind](plain)
    save_file(tensors, source, {"format": "pt"})
    assert main(["convert", str(source), str(target)]) == 0
    converted = load_file(target)
    for key, tensor in plain.items():
        assert torch.equal(converted[key], tensor), key
    HunyuanDiT(SPEC).load_state_dict({k: v.float() for k, v in converted.items()})
    base = plain["x_embedder.proj.weight"].float()
    assert torch.equal(converted["clean_x_embedder.proj.weight"], plain["x_embedder.proj.weight"])
    assert torch.allclose(
        converted["clean_x_embedder.proj_2x.weight"].float().sum((2, 3, 4)), base.sum((2, 3, 4)), atol=0.1
    )
    assert main(["convert", str(target), str(back), "--back"]) == 0
    restored = load_file(back)
    without = {k.removeprefix("model.diffusion_model."): v for k, v in tensors.items()}
    assert restored.keys() == without.keys()
    assert all(torch.equal(restored[k], v) for k, v in without.items())
    with safe_open(back, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_is_no_hunyuan_video_is_refused(plain, tmp_path: Path, capsys):
    other = tmp_path / "other.safetensors"
    save_file({"blocks.0.self_attn.q.weight": torch.zeros(4, 4)}, other)
    assert main(["convert", str(other), str(tmp_path / "out.safetensors")]) == 2
    assert "expected a HunyuanVideo model" in capsys.readouterr().err
    half = tmp_path / "half.safetensors"
    save_file(original(plain) | {"transformer_blocks.0.attn.to_q.weight": torch.zeros(2, 2)}, half)
    with pytest.raises(CheckpointError, match="not half converted"):
        convert(half, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_there_is_never_overwritten(plain, tmp_path: Path):
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    save_file(dict(plain), source)
    target.write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="a new file"):
        convert(source, target)
    assert target.read_bytes() == b"mine"
    with pytest.raises(CheckpointError, match="does not say what it was made from"):
        restore(source, tmp_path / "back.safetensors")
