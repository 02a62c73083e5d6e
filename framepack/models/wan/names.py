"""Wan 2.1's original names, which ComfyUI's single files keep, and those of diffusers."""

from __future__ import annotations

from ..names import KeyMap, one

_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_OF_IMAGE = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
_IMAGE = "condition_embedder.image_embedder."

WAN = KeyMap(
    layers={
        **{f"blocks.#.self_attn.{theirs}": one(f"blocks.#.attn1.{ours}") for theirs, ours in _ATTENTION.items()},
        **{
            f"blocks.#.cross_attn.{theirs}": one(f"blocks.#.attn2.{ours}")
            for theirs, ours in (_ATTENTION | _OF_IMAGE).items()
        },
        "blocks.#.norm3": one("blocks.#.norm2"),  # before the cross-attention
        "blocks.#.ffn.0": one("blocks.#.ffn.net.0.proj"),
        "blocks.#.ffn.2": one("blocks.#.ffn.net.2"),
        "blocks.#.modulation": one("blocks.#.scale_shift_table"),
        "patch_embedding": one("patch_embedding"),
        "text_embedding.0": one("condition_embedder.text_embedder.linear_1"),
        "text_embedding.2": one("condition_embedder.text_embedder.linear_2"),
        "time_embedding.0": one("condition_embedder.time_embedder.linear_1"),
        "time_embedding.2": one("condition_embedder.time_embedder.linear_2"),
        "time_projection.1": one("condition_embedder.time_proj"),
        "img_emb.proj.0": one(f"{_IMAGE}norm1"),
        "img_emb.proj.1": one(f"{_IMAGE}ff.net.0.proj"),
        "img_emb.proj.3": one(f"{_IMAGE}ff.net.2"),
        "img_emb.proj.4": one(f"{_IMAGE}norm2"),
        "head.head": one("proj_out"),
        "head.modulation": one("scale_shift_table"),
    }
)
