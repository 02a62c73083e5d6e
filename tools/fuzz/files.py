"""Files of models and LoRAs with a fault in their bytes, header, tensors, metadata or index."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from framepack.checkpoints.convert import convert, restore
from framepack.checkpoints.files import INDEX, Checkpoint, identity
from framepack.checkpoints.lora_check import HEADER, check_lora
from framepack.checkpoints.model_file import ModelFile, shapes_of
from framepack.models.hunyuan import HunyuanDiT, HunyuanSpec

from . import mutate
from .cases import Case

SPEC = HunyuanSpec(
    heads=1,
    head_dim=16,
    double_blocks=1,
    single_blocks=1,
    refiner_blocks=1,
    text_dim=8,
    pooled_dim=8,
    image_dim=8,
    rope_axes=(4, 6, 6),
)
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64),
)
SHAPES = ((), (0,), (1,), (2, 2), (16, 16), (3, 1, 1))
SCALES = ("scale_weight", "weight_scale", "comfy_quant", "scale_input", "weight_scale_2", "absmax", "zero_point")
PARTS = ("lora_up.weight", "alpha", "dora_scale", "lora_magnitude_vector", "lora_mid.weight", "hada_w1_a", "lokr_w1")
METADATA: tuple[dict[str, str], ...] = (
    {"framepack.spec": "{}"},
    {"framepack.spec": '{"heads": NaN}'},
    {"framepack.latent_format": "[1]"},
    {"framepack.conversion": '{"steps": [[1]]}'},
    {"_quantization_metadata": '{"layers": []}'},
    {HEADER: "{}"},
    {HEADER: '{"transformer.lora_alpha": "a"}'},
    {HEADER: "[" * 3000},
)

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Kinds:
    """Whole files, as tensors by kind."""

    model: Tensors
    unconverted: Tensors
    lora: Tensors


def kinds() -> Kinds:
    """Small files of random weights."""
    torch.manual_seed(0)
    model = {key: torch.randn_like(value) for key, value in HunyuanDiT(SPEC).state_dict().items()}
    layers = [key.removesuffix(".weight") for key, value in model.items() if key.endswith(".to_q.weight")][:2]
    lora: Tensors = {}
    for layer in layers:
        rows, columns = model[f"{layer}.weight"].shape
        lora |= {f"transformer.{layer}.lora_A.weight": torch.randn(4, columns)}
        lora |= {f"transformer.{layer}.lora_B.weight": torch.randn(rows, 4)}
    return Kinds(model, {key: value for key, value in model.items() if not key.startswith("clean_x_embedder.")}, lora)


@contextmanager
def files(folder: Path) -> Iterator[Case]:
    """Each reader of files, on a file with one fault or several."""
    whole, shapes = kinds(), shapes_of(SPEC)

    def case(rng: random.Random, given: list[Any]) -> None:
        for path in folder.iterdir():
            path.unlink()
        path, target = folder / "file.safetensors", folder / "target.safetensors"
        match rng.choice(("model", "convert", "restore", "lora", "index")):
            case "model":
                path.write_bytes(file_of(rng, whole.model, given))
                file = ModelFile.open(path)
                identity("file", file.checkpoint.tensors())
            case "convert":
                path.write_bytes(file_of(rng, whole.unconverted, given))
                convert(path, target)
                restore(target, folder / "back.safetensors")
            case "restore":
                path.write_bytes(file_of(rng, whole.model, given))
                restore(path, target)
            case "lora":
                path.write_bytes(file_of(rng, whole.lora, given))
                checkpoint = Checkpoint.open(path)
                check_lora("file", checkpoint.tensors(), checkpoint.metadata, shapes)
            case "index":
                path.write_bytes(save(whole.lora))
                index = folder / f"file{INDEX}"
                index.write_text(index_text(rng, given), "utf-8", "surrogatepass")
                Checkpoint.open(rng.choice((index, folder))).tensors()

    yield case


def file_of(rng: random.Random, tensors: Tensors, given: list[Any]) -> bytes:
    """A safetensors file with a fault."""
    metadata = rng.choice(METADATA) if rng.random() < 0.3 else {}
    if rng.random() < 0.6:
        tensors = changed(rng, tensors, given)
    data = save(tensors, metadata)
    given.append(metadata)
    kind = rng.randrange(4)
    if kind == 0:
        given.append("other bytes")
        return mutate.some_bytes(rng, data)
    if kind == 1:
        size = int.from_bytes(data[:8], "little")
        header = json.dumps(mutate.data(rng, json.loads(data[8 : 8 + size])))
        given.append(header[:200])
        raw = header.encode("utf-8", "surrogatepass")
        return len(raw).to_bytes(8, "little") + raw + data[8 + size :]
    return data


def changed(rng: random.Random, tensors: Tensors, given: list[Any]) -> Tensors:
    """Tensors of which some are missing, renamed, added, or of another dtype, shape or value."""
    held = dict(tensors)
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(sorted(held))
        layer = key.removesuffix(".weight").removesuffix(".lora_A").removesuffix(".lora_B")
        what = rng.randrange(7)
        match what:
            case 0:
                held.pop(key)
            case 1:
                held[mutate.text(rng, key, "abc._0").encode("utf-8", "replace").decode()] = held.pop(key)
            case 2:
                held[key] = held[key].to(rng.choice(DTYPES))
            case 3:
                held[key] = torch.zeros(rng.choice(SHAPES), dtype=rng.choice(DTYPES))
            case 4:
                held[key] = held[key].float() * (0.0 if rng.random() < 0.3 else float("nan"))
            case 5:
                name = f"{layer}.{rng.choice((*SCALES, *PARTS))}"
                held[name] = torch.ones(rng.choice(SHAPES)).to(rng.choice(DTYPES))
            case 6:
                held["scaled_fp8"] = torch.zeros(rng.choice(SHAPES), dtype=rng.choice(DTYPES))
        given.append(f"{what} {key[:80]}")
        if not held:
            break
    return held


def index_text(rng: random.Random, given: list[Any]) -> str:
    """An index of shards with a fault."""
    base = {"metadata": {"total_size": 1}, "weight_map": {"a": "file.safetensors", "b": "other.safetensors"}}
    text = json.dumps(mutate.data(rng, base))
    if rng.random() < 0.2:
        text = mutate.text(rng, text, '{}[]":,')
    given.append(text[:200])
    return text
