"""HunyuanVideo's VAE as the host builds it, but narrow and with random weights; Wan's as newer hosts decode by it."""

from __future__ import annotations

import copy
import itertools
import json

import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL

SIZES = {
    "double_z": True,
    "z_channels": 16,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
    "conv3d": True,
    "time_compress": 4,
}


class StandInVAE:
    """A VAE whose group norms span time; it fails at the tile of that number, where there is one."""

    RETURN_TYPES = ("VAE",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {}, "optional": {"fails_at": ("INT", {"default": 0}), "channels": ("INT", {"default": 16})}}

    def load(self, fails_at=0, channels=16):
        shapes = {key: value.shape for key, value in AutoencoderKL(ddconfig=SIZES, embed_dim=16).state_dict().items()}
        draw = torch.Generator().manual_seed(0)
        weights = {k: torch.randn(s, generator=draw) / max(s[1:].numel(), 1) ** 0.5 for k, s in shapes.items()}
        vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": SIZES, "embed_dim": 16}})
        vae.latent_dim, vae.latent_channels = 3, channels
        vae.upscale_ratio, vae.upscale_index_formula = (lambda t: max(0, 4 * t - 3), 8, 8), (4, 8, 8)
        vae.memory_used_decode = lambda shape, dtype: 1500 * shape[2:].numel() * 4 * 8 * 8 * 4
        if fails_at:
            decode, tiles = vae.decode, itertools.count(1)

            def fails(latents):
                if next(tiles) == fails_at:
                    raise RuntimeError("no more")
                return decode(latents)

            vae.decode = fails
        return (vae,)


class NewerDecoder(torch.nn.Module):
    """The host's Wan decoder under the rules of newer ones: of each call it keeps no more than two frames and none from
    before it, and it gives a list of pieces."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def run_up(self):
        """Newer decoders are told by this name."""

    def forward(self, x, feat_cache=None, feat_idx=(0,)):
        out = self.decoder(x, feat_cache=feat_cache, feat_idx=list(feat_idx))
        for i, kept in enumerate(feat_cache):
            if isinstance(kept, torch.Tensor) and kept.shape[3] == x.shape[3]:  # at the latents' own rate in time
                feat_cache[i] = kept[:, :, -x.shape[2] :]
        return list(out.split(2, 2))


class StandInNewerVAE:
    """A Wan VAE with such a decoder: the host's own where it is one."""

    RETURN_TYPES = ("VAE",)
    FUNCTION = "change"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"vae": ("VAE",)}}

    def change(self, vae):
        if hasattr(vae.first_stage_model.decoder, "run_up"):
            return (vae,)
        vae = copy.copy(vae)
        model = copy.copy(vae.first_stage_model)
        model._modules = {**model._modules, "decoder": NewerDecoder(model.decoder)}
        vae.first_stage_model = model
        return (vae,)


class StandInNoise:
    """Random latents of another's shape."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "draw"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"samples": ("LATENT",)}}

    def draw(self, samples):
        shape = samples["samples"].shape
        return ({"samples": torch.randn(shape, generator=torch.Generator().manual_seed(0))},)


class StandInClips:
    """A plan whose sections decode on their own."""

    RETURN_TYPES = ("FRAMEPACK_PLAN",)
    FUNCTION = "change"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"plan": ("FRAMEPACK_PLAN",)}}

    def change(self, plan):
        geometry = {"spatial": 8, "temporal": 4, "patch": 2, "channels": 16, "sections_are_clips": True}
        fields = json.loads(plan)
        del fields["num_pix_frames"]  # fewer, now
        return (json.dumps(fields | {"geometry": geometry}),)
