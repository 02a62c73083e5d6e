"""Run inside the host by inside.py: what the pack relies on in the host beyond its documented interfaces.

A check that fails says where a host has changed, before a person sees it in a video.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import torch
from checks import module_of, report
from comfy.ldm.wan.vae import WanVAE
from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import get_progress_state, reset_progress_state
from comfy_execution.utils import CurrentNodeContext, get_executing_context

loading, aside = module_of("nodes.host.loading"), module_of("nodes.host.aside")
finished, vaes, units = module_of("nodes.host.finished"), module_of("nodes.host.vaes"), module_of("framepack.units")
builtin = module_of("framepack.shapes.builtin")
DIT = builtin.ASSETS / "diffusion_models" / "framepack_shapes_dit.safetensors"


def statements(function) -> list[ast.stmt]:
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    return found.body


def is_call_of_super(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and "super().__init__(" in ast.unparse(statement)


def check_the_constructors_that_are_passed_over_do_nothing_else():
    """The pack's models call BaseModel's own with a DiT of theirs; these would build the host's."""
    (only,) = statements(comfy.model_base.HunyuanVideo.__init__)
    assert is_call_of_super(only)
    first, second = statements(comfy.model_base.WAN21.__init__)
    assert is_call_of_super(first)
    assert ast.unparse(second) == "self.image_to_video = image_to_video"
    names = list(inspect.signature(comfy.model_base.BaseModel.__init__).parameters)
    assert names[:5] == ["self", "model_config", "model_type", "device", "unet_model"]


def check_wans_vae_decodes_with_a_cache_from_outside():
    assert issubclass(WanVAE, torch.nn.Module)
    vae = WanVAE(dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    assert {"feat_cache", "feat_idx"} <= inspect.signature(vae.decoder.forward).parameters.keys()
    assert isinstance(vae.conv2, torch.nn.Module)


def check_what_stands_aside_is_neither_loaded_nor_counted_and_is_patched():
    patcher = loading.load_model(str(DIT), weight_dtype="fp32", disable_dynamic=True)
    held = aside.layers_aside(patcher.model.diffusion_model)
    assert held
    size = comfy.model_management.module_size
    assert patcher.size == size(patcher.model) - sum(size(layer) for layer in held.values())
    assert patcher.model_size() == patcher.size
    listed = {name for entry in patcher._load_list() for name in entry if isinstance(name, str)}
    assert not listed & {f"diffusion_model.{own}" for own in held}
    name, layer = next(iter(held.items()))
    key = f"diffusion_model.{name}.weight"
    before, change = layer.weight.clone(), torch.ones_like(layer.weight)
    assert patcher.add_patches({key: ("diff", (change,))}, 0.5) == [key]
    aside.patch_aside(patcher)
    assert torch.allclose(layer.weight, before + 0.5)
    assert key in patcher.backup
    patcher.unpatch_model(device_to=patcher.offload_device)
    assert torch.equal(layer.weight, before)


def check_a_node_of_an_expansion_is_shown_on_its_parent():
    """What the nodes of a plan share is kept under the node of the page that shows them."""
    prompt = DynamicPrompt({"7": {"class_type": "SectionSampler", "inputs": {}}})
    prompt.add_ephemeral_node("7.0.0.section_0", {"class_type": "FramePackSections", "inputs": {}}, "7", "7")
    with CurrentNodeContext("run", "7.0.0.section_0"):
        context = get_executing_context()
    assert prompt.get_display_node_id(context.node_id) == "7"
    reset_progress_state("run", prompt)
    assert get_progress_state().dynprompt is prompt
    assert finished.is_kept("7.0.0.section_0")
    assert not finished.is_kept("7")


def check_a_wrong_vae_is_known_by_the_hosts_classes():
    """Wan's and HunyuanVideo's latents have the same shape; the VAEs' classes and the formats' names differ."""
    wan, hunyuan = comfy.latent_formats.Wan21(), comfy.latent_formats.HunyuanVideo()
    size = {"latent_dim": 3, "latent_channels": 16, "throw_exception_if_invalid": lambda: None}
    size |= {"temporal_compression_decode": lambda: 4, "spacial_compression_decode": lambda: 8}

    def vae(dim: int) -> SimpleNamespace:
        with torch.device("meta"):
            return SimpleNamespace(**size, first_stage_model=WanVAE(dim=dim, z_dim=16, dim_mult=[1, 2, 4, 4]))

    vaes.check_vae(vae(96), units.RELEASED, wan)
    vaes.check_vae(vae(8), units.RELEASED, hunyuan)  # a narrow one is nobody's in particular
    try:
        vaes.check_vae(vae(96), units.RELEASED, hunyuan)
    except vaes.WrongVAEError as fault:
        assert "needs HunyuanVideo's VAE (hunyuan_video_vae_bf16.safetensors)" in str(fault)
        assert "got Wan's VAE" in str(fault)
    else:
        raise AssertionError("a wrong VAE passed")


if __name__ == "__main__":
    report(globals())
