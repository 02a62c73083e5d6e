"""HunyuanVideo's original names and those of diffusers, module by module."""

from __future__ import annotations

from ..names import Fused, KeyMap, one

_DOUBLE, _SINGLE = "transformer_blocks.#.", "single_transformer_blocks.#."
_REFINER = "context_embedder.token_refiner.refiner_blocks.#."


def _qkv(prefix: str, q: str = "to_q", k: str = "to_k", v: str = "to_v") -> Fused:
    return Fused(names=tuple(f"{prefix}attn.{name}" for name in (q, k, v)), parts=(1, 1, 1))


LAYERS: dict[str, Fused] = {
    "double_blocks.#.img_mod.linear": one(f"{_DOUBLE}norm1.linear"),
    "double_blocks.#.txt_mod.linear": one(f"{_DOUBLE}norm1_context.linear"),
    "double_blocks.#.img_attn_qkv": _qkv(_DOUBLE),
    "double_blocks.#.txt_attn_qkv": _qkv(_DOUBLE, "add_q_proj", "add_k_proj", "add_v_proj"),
    "double_blocks.#.img_attn_q_norm": one(f"{_DOUBLE}attn.norm_q"),
    "double_blocks.#.img_attn_k_norm": one(f"{_DOUBLE}attn.norm_k"),
    "double_blocks.#.txt_attn_q_norm": one(f"{_DOUBLE}attn.norm_added_q"),
    "double_blocks.#.txt_attn_k_norm": one(f"{_DOUBLE}attn.norm_added_k"),
    "double_blocks.#.img_attn_proj": one(f"{_DOUBLE}attn.to_out.0"),
    "double_blocks.#.txt_attn_proj": one(f"{_DOUBLE}attn.to_add_out"),
    "double_blocks.#.img_mlp.fc1": one(f"{_DOUBLE}ff.net.0.proj"),
    "double_blocks.#.img_mlp.fc2": one(f"{_DOUBLE}ff.net.2"),
    "double_blocks.#.txt_mlp.fc1": one(f"{_DOUBLE}ff_context.net.0.proj"),
    "double_blocks.#.txt_mlp.fc2": one(f"{_DOUBLE}ff_context.net.2"),
    "single_blocks.#.linear1": Fused(
        names=(*(f"{_SINGLE}attn.{name}" for name in ("to_q", "to_k", "to_v")), f"{_SINGLE}proj_mlp"),
        parts=(1, 1, 1, 4),
    ),
    "single_blocks.#.linear2": one(f"{_SINGLE}proj_out"),
    "single_blocks.#.q_norm": one(f"{_SINGLE}attn.norm_q"),
    "single_blocks.#.k_norm": one(f"{_SINGLE}attn.norm_k"),
    "single_blocks.#.modulation.linear": one(f"{_SINGLE}norm.linear"),
    "img_in.proj": one("x_embedder.proj"),
    "time_in.mlp.0": one("time_text_embed.timestep_embedder.linear_1"),
    "time_in.mlp.2": one("time_text_embed.timestep_embedder.linear_2"),
    "vector_in.in_layer": one("time_text_embed.text_embedder.linear_1"),
    "vector_in.out_layer": one("time_text_embed.text_embedder.linear_2"),
    "guidance_in.mlp.0": one("time_text_embed.guidance_embedder.linear_1"),
    "guidance_in.mlp.2": one("time_text_embed.guidance_embedder.linear_2"),
    "txt_in.input_embedder": one("context_embedder.proj_in"),
    "txt_in.t_embedder.mlp.0": one("context_embedder.time_text_embed.timestep_embedder.linear_1"),
    "txt_in.t_embedder.mlp.2": one("context_embedder.time_text_embed.timestep_embedder.linear_2"),
    "txt_in.c_embedder.linear_1": one("context_embedder.time_text_embed.text_embedder.linear_1"),
    "txt_in.c_embedder.linear_2": one("context_embedder.time_text_embed.text_embedder.linear_2"),
    "txt_in.individual_token_refiner.blocks.#.norm1": one(f"{_REFINER}norm1"),
    "txt_in.individual_token_refiner.blocks.#.norm2": one(f"{_REFINER}norm2"),
    "txt_in.individual_token_refiner.blocks.#.self_attn_qkv": _qkv(_REFINER),
    "txt_in.individual_token_refiner.blocks.#.self_attn_proj": one(f"{_REFINER}attn.to_out.0"),
    "txt_in.individual_token_refiner.blocks.#.mlp.fc1": one(f"{_REFINER}ff.net.0.proj"),
    "txt_in.individual_token_refiner.blocks.#.mlp.fc2": one(f"{_REFINER}ff.net.2"),
    "txt_in.individual_token_refiner.blocks.#.adaLN_modulation.1": one(f"{_REFINER}norm_out.linear"),
    "final_layer.linear": one("proj_out"),
    "final_layer.adaLN_modulation.1": one("norm_out.linear", swap=True),  # there shift stands before scale
}

# ComfyUI's single files spell some of the original names another way.
COMFY_SPELLINGS = (
    (r"(img|txt)_attn\.qkv$", r"\1_attn_qkv"),
    (r"(img|txt)_attn\.proj$", r"\1_attn_proj"),
    (r"(img|txt)_attn\.norm\.query_norm$", r"\1_attn_q_norm"),
    (r"(img|txt)_attn\.norm\.key_norm$", r"\1_attn_k_norm"),
    (r"(img|txt)_mod\.lin$", r"\1_mod.linear"),
    (r"(img|txt)_mlp\.0$", r"\1_mlp.fc1"),
    (r"(img|txt)_mlp\.2$", r"\1_mlp.fc2"),
    (r"^single_blocks\.(\d+)\.norm\.query_norm$", r"single_blocks.\1.q_norm"),
    (r"^single_blocks\.(\d+)\.norm\.key_norm$", r"single_blocks.\1.k_norm"),
    (r"^single_blocks\.(\d+)\.modulation\.lin$", r"single_blocks.\1.modulation.linear"),
    (r"^(time_in|guidance_in|txt_in\.t_embedder)\.in_layer$", r"\1.mlp.0"),
    (r"^(time_in|guidance_in|txt_in\.t_embedder)\.out_layer$", r"\1.mlp.2"),
    (r"^txt_in\.c_embedder\.in_layer$", "txt_in.c_embedder.linear_1"),
    (r"^txt_in\.c_embedder\.out_layer$", "txt_in.c_embedder.linear_2"),
    (r"self_attn\.(qkv|proj)$", r"self_attn_\1"),
    (r"(token_refiner\.blocks\.\d+)\.mlp\.0$", r"\1.mlp.fc1"),
    (r"(token_refiner\.blocks\.\d+)\.mlp\.2$", r"\1.mlp.fc2"),
)

HUNYUAN = KeyMap(layers=LAYERS, spellings=COMFY_SPELLINGS)
