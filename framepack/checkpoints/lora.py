"""LoRA files of every naming to one: a module's own name, a dot, and the tensor's part.

A file's names differ in a prefix, in dots or underscores, and in whether they follow diffusers or the original. A LoRA
on a fused original matrix is split by rows: the layers share A and each takes its rows of B, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..errors import CheckpointError
from ..models.backbones import backbones
from ..models.names import Fused, KeyMap, one, swapped

PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "lora_transformer_",
    "Hunyuan_video_I2V_lora_",
    "Hunyuan_video_lora_",
    "lora_unet_",
    "lycoris_",
)
UP = ("lora_B.weight", "lora_up.weight", "lora_B.default.weight", "lora.up.weight", "lora_linear_layer.up.weight")
DOWN = (
    "lora_A.weight",
    "lora_down.weight",
    "lora_A.default.weight",
    "lora.down.weight",
    "lora_linear_layer.down.weight",
)
SHARED = ("alpha",)
MAGNITUDE = tuple(f"lora_magnitude_vector{end}" for end in ("", ".weight", ".default", ".default.weight"))  # DoRA, PEFT
WHOLE = (
    *("dora_scale", "diff", "diff_b", "lora_mid.weight"),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
OF_ROWS = ("lora_up.weight", "dora_scale", "diff", "diff_b")  # parts whose rows are the layer's
CANONICAL = {name: "lora_up.weight" for name in UP} | {name: "lora_down.weight" for name in DOWN}
SUFFIXES = sorted((*UP, *DOWN, *SHARED, *MAGNITUDE, *WHOLE), key=len, reverse=True)


@dataclass(slots=True)
class Matched:
    """Tensors under our modules' names, the modules that they change, and the keys of the file that fit nothing."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    unmatched: list[str] = field(default_factory=list)


def match(tensors: Mapping[str, Tensor], modules: Iterable[str]) -> Matched:
    """Rename a LoRA's tensors to a model's `modules`. Raises CheckpointError for what cannot be applied to them."""
    names = _Names(modules)
    found = Matched()
    for key, tensor in tensors.items():
        module, suffix = split(key)
        target = names.find(module) if suffix else None
        if target is None:
            found.unmatched.append(key)
            continue
        parts = _parts(key, tensor, suffix, target)
        if twice := sorted(parts.keys() & found.tensors.keys()):
            raise CheckpointError(f"{key} is in the file under two names, for {twice[0]}. Remove one of them.")
        found.modules |= set(target.names)
        found.tensors |= parts
    return found


def split(key: str) -> tuple[str, str]:
    """A key's module, prefix taken off, and its part; no part for a key that is none of a LoRA's."""
    suffix = next((s for s in SUFFIXES if key.endswith("." + s)), "")
    module = key[: -len(suffix) - 1] if suffix else key
    shorter = True
    while shorter:
        shorter = next((p for p in PREFIXES if module.startswith(p)), "")
        module = module.removeprefix(shorter)
    return module, suffix


class _Names:
    """Our modules by every spelling: with dots, with underscores, and under the original's names."""

    def __init__(self, modules: Iterable[str]):
        own = set(modules)
        self.flat: dict[str, Fused] = {}
        for backbone in backbones():
            self._add(backbone.names, own)
        self.flat |= {name.replace(".", "_"): one(name) for name in own}

    def _add(self, names: KeyMap, own: set[str]) -> None:
        """A release's spellings of the modules that are there."""
        numbers = {part for name in own for part in name.split(".") if part.isdigit()}
        for pattern in names.layers:
            for number in numbers if "#" in pattern else [""]:
                original = pattern.replace("#", number)
                fused = names.layer(original)
                if fused is not None and set(fused.names) <= own:
                    self.flat |= {spelling.replace(".", "_"): fused for spelling in _spellings(original)}

    def find(self, module: str) -> Fused | None:
        return self.flat.get(module.replace(".", "_"))


def _spellings(original: str) -> list[str]:
    """An original name, and as the host's files spell it; dots and underscores count alike."""
    for fc, place in (("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.2")):
        if fc in original:
            return [original, original.replace(fc, place)]
    return [original, original.replace("_mod.linear", "_mod.lin").replace("modulation.linear", "modulation.lin")]


def _parts(key: str, tensor: Tensor, suffix: str, target: Fused) -> dict[str, Tensor]:
    """A tensor under the names of the layers that it belongs to."""
    part = CANONICAL.get(suffix, suffix)
    if suffix in MAGNITUDE:
        raise CheckpointError(
            f"{key} is a magnitude of DoRA as PEFT trains it, which ComfyUI computes in another way. Merge the LoRA "
            "into its model, or train it without use_dora."
        )
    if len(target.names) == 1:
        turned = target.swap and part in OF_ROWS and tensor.ndim > 0
        return {f"{target.names[0]}.{part}": swapped(tensor) if turned else tensor}
    if part in ("lora_down.weight", "alpha"):
        return {f"{name}.{part}": tensor for name in target.names}
    if part not in OF_ROWS:
        raise CheckpointError(
            f"{key}: a factor of a fused layer ({', '.join(target.names)}) cannot be split. Convert the LoRA to plain "
            "A and B matrices first."
        )
    rows, widths = tensor.shape[0] if tensor.ndim else 0, sum(target.parts)
    if not rows or rows % widths:
        raise CheckpointError(f"{key} must have a multiple of {widths} rows; got {rows}. It is for another model.")
    pieces = tensor.split([rows // widths * n for n in target.parts])
    return {f"{name}.{part}": piece for name, piece in zip(target.names, pieces, strict=True)}
