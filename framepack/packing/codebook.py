"""Discrete history: latent pixels replaced by the nearest centroid of a codebook (paper v3, equation 6).

A codebook is learned by K-means over the latent pixels of a data set. Small errors that a section adds to its history
fall into the same cell as the sound pixel, so they do not build up. The paper recommends 128 centroids.

Dims: b batch, c channels, t h w latent grid, n pixels, k centroids. Latents are unscaled VAE latents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CodebookError, MissingPackageError

CHUNK = 1 << 16  # pixels whose distances are held at a time
MOST_PIXELS = 360_000  # that are learned from
SEEDING = 4096  # pixels that the first centroids are found among
METADATA = "framepack.codebook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Codebook:
    """Centroids ``k c``, the latent format that they are of, and what they were learned from."""

    centroids: Tensor
    latent_format: str
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.centroids.ndim != 2 or len(self.centroids) < 2:
            raise CodebookError(
                f"A codebook needs 2 centroids or more; got a tensor of shape {tuple(self.centroids.shape)}. Learn one "
                "with: python -m framepack codebook"
            )
        if not self.centroids.isfinite().all():
            raise CodebookError("The codebook holds NaN or infinite values. Learn it again.")

    def discretize(self, latents: Tensor, strength: float = 1.0) -> Tensor:
        """Move each pixel of latents ``b c t h w`` towards its nearest centroid: 0 not at all, 1 all the way.

        Raises CodebookError for latents of other channels.
        """
        if not strength:
            return latents
        self.check(latents.shape[1])
        pixels = rearrange(latents, "b c t h w -> (b t h w) c").float()
        centroids = self.centroids.to(pixels)
        nearest = centroids[assign(pixels, centroids)]
        b, _, t, h, w = latents.shape
        nearest = rearrange(nearest, "(b t h w) c -> b c t h w", b=b, t=t, h=h, w=w)
        return nearest.to(latents) if strength == 1 else torch.lerp(latents, nearest.to(latents), strength)

    def check(self, channels: int, latent_format: str | None = None) -> None:
        """Raises CodebookError for latents of another number of channels, or of another format where it is named."""
        own = self.centroids.shape[1]
        if latent_format is not None and latent_format != self.latent_format:
            raise CodebookError(
                f"The codebook is of {self.latent_format} latents; the model has {latent_format} latents. Learn a "
                "codebook with the model's own VAE."
            )
        if channels != own:
            raise CodebookError(
                f"The codebook is of {self.latent_format} latents with {own} channels; the history has {channels}. "
                "Learn a codebook with the model's own VAE."
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the centroids as float32, by which a model's file names the codebook that it was trained with."""
        values = self.centroids.detach().cpu().float().contiguous()
        return hashlib.sha256(values.numpy().tobytes()).hexdigest()

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Codebook:
        """The same centroids after a function of latents ``1 c 1 1 k``, such as a model's normalisation."""
        latents = self.centroids.T[None, :, None, None]
        return replace(self, centroids=function(latents)[0, :, 0, 0].T.contiguous())

    def save(self, path: Path) -> None:
        """Write a safetensors file. Raises CodebookError where a file is already."""
        if path.exists():
            raise CodebookError(f"{path} exists already. Name a new file.")
        stated = {"latent_format": self.latent_format} | dict(self.provenance)
        save_file({"centroids": self.centroids.contiguous()}, path, {METADATA: json.dumps(stated)})

    @classmethod
    def load(cls, path: Path) -> Codebook:
        """Read what `save` wrote. Raises CodebookError."""
        try:
            with safe_open(path, "pt") as file:
                stated = json.loads((file.metadata() or {})[METADATA])
                return cls(
                    centroids=file.get_tensor("centroids"),
                    latent_format=stated.pop("latent_format"),
                    provenance=stated,
                )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as fault:
            if isinstance(fault, CodebookError):
                raise
            raise CodebookError(
                f"{path} is not a codebook ({fault}). Make one with: python -m framepack codebook"
            ) from fault


def assign(pixels: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid (L2) of each pixel; pixels ``n c``, centroids ``k c`` -> ``n``."""
    return torch.cat([torch.cdist(chunk, centroids).argmin(1) for chunk in pixels.split(CHUNK)])


def learn(
    pixels: Tensor,
    num: int,
    *,
    seed: int = 0,
    rounds: int = 30,
    tolerance: float = 1e-4,
    first: Tensor | None = None,
) -> Tensor:
    """K-means over pixels ``n c`` (Lloyd): `num` centroids ``k c``.

    kornia finds the first centroids among a few thousand pixels, where they are not given. Rounds over all of them
    follow, until the error falls by less than `tolerance` of itself. A cell that loses all its pixels moves to the
    pixel farthest from its centroid. Raises CodebookError for too few pixels, or ones that are not finite.
    """
    if num < 2 or len(pixels) < num:
        raise CodebookError(f"{num} centroids cannot be learned from {len(pixels)} latent pixels. Give more video.")
    if not pixels.isfinite().all():
        raise CodebookError("The latents hold NaN or infinite values. Encode the videos again.")
    centroids = _first(pixels, num, seed) if first is None else first
    last = float("inf")
    for _ in range(rounds):
        cells = assign(pixels, centroids)
        errors = (pixels - centroids[cells]).square().sum(1)
        error = float(errors.mean())
        count = torch.bincount(cells, minlength=num)
        total = torch.zeros_like(centroids).index_add_(0, cells, pixels)
        centroids = total / count.clamp_min(1)[:, None]
        if (empty := (count == 0).nonzero()[:, 0]).numel():
            centroids[empty] = pixels[errors.topk(len(empty)).indices]
        if last - error <= tolerance * error and not len(empty):
            break
        last = error
    return centroids


def some_pixels(videos: Iterable[Tensor], most: int = MOST_PIXELS, seed: int = 0, count: int = 1) -> Tensor:
    """At most so many pixels ``n c`` of latents ``b c t h w``, drawn evenly from `count` videos.

    Raises CodebookError for videos of different channels.
    """
    generator, share, some = torch.Generator().manual_seed(seed), -(-most // count), []
    for latents in videos:
        pixels = latents.movedim(1, -1).flatten(0, -2).float()
        some.append(pixels[torch.randperm(len(pixels), generator=generator)[:share]])
    if len({part.shape[1] for part in some}) > 1:
        raise CodebookError("The latents have different numbers of channels. Keep one latent format.")
    return torch.cat(some)


def explained_variance(pixels: Tensor, centroids: Tensor) -> float:
    """1 for centroids that are the pixels, 0 for no better than the mean."""
    error = (pixels - centroids[assign(pixels, centroids)]).square().mean()
    return float(1 - error / (pixels - pixels.mean(0)).square().mean().clamp_min(1e-12))


def _first(pixels: Tensor, num: int, seed: int) -> Tensor:
    """Centroids of a sample. Raises MissingPackageError."""
    try:
        from kornia.contrib import KMeans
    except ImportError as fault:
        raise MissingPackageError("Learning a codebook needs kornia. Install it with: pip install kornia") from fault
    generator = torch.Generator().manual_seed(seed)
    some = pixels[torch.randperm(len(pixels), generator=generator)[: max(SEEDING, 8 * num)]]
    with torch.random.fork_rng(devices=[]):  # kornia seeds the global generator
        means = KMeans(num, None, 1e-3, 20, seed)
        means.fit(some)
    return means.cluster_centers.to(pixels)
