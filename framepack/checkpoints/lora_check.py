"""A LoRA is validated whole before any of it is applied: pairs, ranks, sizes, values, and its alphas.

Dims: o rows of a layer's weight, i its columns, r rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .detect import ancestors
from .lora import DOWN, Matched, match, split

HEADER = "lora_adapter_metadata"  # where diffusers states PEFT's configuration: alphas that no tensor holds
OWNERS = ("transformer.", "diffusion_model.", "unet.", "")  # whose configuration is meant; others are text encoders
UP_PART, DOWN_PART, MID_PART = "lora_up.weight", "lora_down.weight", "lora_mid.weight"
# Parts that go together, by one that tells the kind: all of them, or nothing.
WHOLE = (
    ("lora_", (UP_PART, DOWN_PART)),
    ("hada_", ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
    ("lokr_", ("lokr_w1", "lokr_w2")),
)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA that fits: its tensors by our layers' names and parts; the layers that it changes and those with zeros."""

    tensors: Mapping[str, Tensor]
    changed: frozenset[str]
    zeros: frozenset[str]
    unmatched: tuple[str, ...]


def check_lora(
    name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], shapes: Mapping[str, Shape]
) -> Lora:
    """The LoRA of a file for a model with tensors of these shapes. Raises CheckpointError, by file and tensor."""
    modules = {key.removesuffix(".weight") for key in shapes if key.endswith(".weight")}
    try:
        found = match({**tensors, **_stated_alphas(tensors, metadata)}, modules)
        if not found.modules:
            shown = ", ".join(found.unmatched[:3])
            raise CheckpointError(
                f"none of its {len(found.unmatched)} tensors belongs to this model ({shown} ...). Choose a LoRA for "
                "FramePack or HunyuanVideo."
            )
        layers = _by_layer(found)
        for layer, parts in layers.items():
            _check_layer(layer, parts, shapes)
    except CheckpointError as fault:
        raise CheckpointError(f"{name}: {fault}") from None
    zeros = {layer for layer, parts in layers.items() if _is_zero(parts)}
    return Lora(
        tensors=found.tensors,
        changed=frozenset(layers.keys() - zeros),
        zeros=frozenset(zeros),
        unmatched=tuple(found.unmatched),
    )


def _by_layer(found: Matched) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {layer: {} for layer in sorted(found.modules)}
    for key, tensor in found.tensors.items():
        layer = next(layer for layer in ancestors(key) if layer in layers)
        layers[layer][key[len(layer) + 1 :]] = tensor
    return layers


def _check_layer(layer: str, parts: Mapping[str, Tensor], shapes: Mapping[str, Shape]) -> None:
    """All parts of a layer's LoRA are there, finite, and fit each other and the layer."""
    for part, tensor in parts.items():
        if not tensor.is_floating_point() or not tensor.numel():
            raise CheckpointError(f"{layer}.{part} is {tensor.dtype} of {tuple(tensor.shape)}; it must hold numbers.")
        if not torch.isfinite(tensor.float()).all():
            raise CheckpointError(f"{layer}.{part} holds values that are not finite (NaN or infinite). Get it again.")
        if part == "alpha" and tensor.numel() != 1:
            raise CheckpointError(f"{layer}.alpha must be one number; got {tuple(tensor.shape)}.")
    given = _joined(parts)
    kinds = [needed for start, needed in WHOLE if any(part.startswith(start) for part in given)]
    for needed in kinds:
        if lacking := [part for part in needed if part not in given]:
            raise CheckpointError(f"{layer} has {', '.join(sorted(parts))} and no {lacking[0]}. Get the file again.")
    if not kinds and not {"diff", "diff_b"} & parts.keys():
        raise CheckpointError(f"{layer} has {', '.join(sorted(parts))} and no matrices. Get the file again.")
    weight = shapes[f"{layer}.weight"]
    _check_sizes(layer, parts, given, weight)
    _check_same(layer, parts, "diff", weight)
    _check_same(layer, parts, "diff_b", shapes.get(f"{layer}.bias", ()))


def _joined(parts: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shapes of the parts, with a factor of LoKr that is given as a product of two as that product."""
    given = {part: tuple(tensor.shape) for part, tensor in parts.items()}
    for factor in ("lokr_w1", "lokr_w2"):
        a, b = given.get(f"{factor}_a", ()), given.get(f"{factor}_b", ())
        if len(a) >= 2 and len(b) >= 2:
            given[factor] = (a[0], *b[1:])
    return given


def _check_sizes(layer: str, parts: Mapping[str, Tensor], given: Mapping[str, Shape], weight: Shape) -> None:
    """Ranks agree, and the products have the layer's rows and columns."""
    rows, columns = weight[0], math.prod(weight[1:])
    for part in (UP_PART, DOWN_PART, "lokr_w1", "lokr_w2", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"):
        if part in given and len(given[part]) < 2:
            raise CheckpointError(f"{layer}.{part} must be a matrix; got {given[part]}.")
    if UP_PART in given:
        up, down = given[UP_PART], given[DOWN_PART]
        if up[1] != down[0]:
            raise CheckpointError(f"{layer}: A has rank {down[0]} and B has {up[1]}; they must agree.")
        _check_product(layer, (up[0], columns if MID_PART in parts else math.prod(down[1:])), (rows, columns))
    if "hada_w1_a" in given and not {"hada_t1", "hada_t2"} & parts.keys():
        for n in "12":
            a, b = given[f"hada_w{n}_a"], given[f"hada_w{n}_b"]
            if a[1] != b[0]:
                raise CheckpointError(f"{layer}: hada_w{n}_a has rank {a[1]} and hada_w{n}_b has {b[0]}.")
            _check_product(layer, (a[0], math.prod(b[1:])), (rows, columns))
    if "lokr_w1" in given and "lokr_t2" not in parts:
        w1, w2 = given["lokr_w1"], given["lokr_w2"]
        _check_product(layer, (w1[0] * w2[0], math.prod(w1[1:]) * math.prod(w2[1:])), (rows, columns))
    if "dora_scale" in parts and parts["dora_scale"].numel() not in (rows, columns):
        raise CheckpointError(f"{layer}.dora_scale must have {rows} values; got {parts['dora_scale'].numel()}.")


def _check_product(layer: str, product: tuple[int, int], weight: tuple[int, int]) -> None:
    if product != weight:
        raise CheckpointError(
            f"{layer}: the LoRA is for {product[0]} rows and {product[1]} columns; the layer has {weight[0]} and "
            f"{weight[1]}, so it is for another model."
        )


def _check_same(layer: str, parts: Mapping[str, Tensor], part: str, shape: Shape) -> None:
    if part in parts and tuple(parts[part].shape) != tuple(shape):
        raise CheckpointError(f"{layer}.{part} must be {tuple(shape)}; got {tuple(parts[part].shape)}.")


def _is_zero(parts: Mapping[str, Tensor]) -> bool:
    """Does a layer's LoRA add nothing? A product is zero where one of its factors is."""
    if any(bool(parts[part].any()) for part in ("diff", "diff_b") if part in parts):
        return False
    factors = [tensor for part, tensor in parts.items() if part.startswith(("lora_", "hada_", "lokr_"))]
    return not factors or "dora_scale" not in parts and not all(bool(tensor.any()) for tensor in factors)


def _stated_alphas(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Alphas that only the header states, under the file's own names. Raises CheckpointError where it says nonsense."""
    held = {split(key)[0] for key in tensors if split(key)[1] == "alpha"}
    stated = _adapter(metadata)
    if "lora_alpha" not in stated:
        return {}
    found = {}
    for key, tensor in tensors.items():
        module, suffix = split(key)
        if suffix in DOWN and module not in held and tensor.ndim:
            alpha = _alpha_of(module, stated)
            if stated.get("use_rslora"):
                alpha *= math.sqrt(tensor.shape[0])
            found[f"{module}.alpha"] = torch.tensor(alpha)
    return found


def _adapter(metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's configuration of the transformer."""
    if HEADER not in metadata:
        return {}
    try:
        stated = dict(json.loads(metadata[HEADER]).items())
    except (AttributeError, RecursionError, TypeError, ValueError) as fault:
        raise CheckpointError(f"its metadata {HEADER} is no configuration ({fault!r}). Get the file again.") from fault
    for owner in OWNERS:
        if f"{owner}lora_alpha" in stated:
            return {key.removeprefix(owner): value for key, value in stated.items() if key.startswith(owner)}
    return {}


def _alpha_of(module: str, stated: Mapping[str, Any]) -> float:
    """The alpha of a module: its own, or the common one."""
    alpha, patterns = stated["lora_alpha"], stated.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"its metadata {HEADER} has the alpha_pattern {patterns!r}; it must name layers.")
    for pattern, value in patterns.items():
        layer = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not layer.replace(".", "").replace("_", "").isalnum():
            raise CheckpointError(
                f"its alpha_pattern names layers by the expression {pattern!r}; name them one by one."
            )
        if f".{module}".endswith(f".{layer}"):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CheckpointError(f"its metadata {HEADER} has the alpha {alpha!r} for {module}; it must be a number.")
    return float(alpha)
