"""Discrete history: what a codebook does to latents, and how one is learned, saved and read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from framepack.cli import main
from framepack.errors import CodebookError
from framepack.packing.codebook import Codebook, assign, explained_variance, learn
from framepack.shapes.builtin import ASSETS


def clusters(num: int, each: int, spread: float) -> tuple[Tensor, Tensor]:
    """Pixels ``num * each, 16`` around far centres, and the centres."""
    generator = torch.Generator().manual_seed(1)
    centres = 10 * torch.randn(num, 16, generator=generator)
    return (centres[:, None] + spread * torch.randn(num, each, 16, generator=generator)).flatten(0, 1), centres


def book(centroids: Tensor | None = None) -> Codebook:
    made = torch.randn(8, 16, generator=torch.Generator().manual_seed(2)) if centroids is None else centroids
    return Codebook(centroids=made, latent_format="wan21", provenance={"files": 1})


def test_kmeans_finds_clusters_that_lie_apart():
    pixels, centres = clusters(12, 300, 0.1)
    found = learn(pixels, 24)
    assert torch.cdist(centres, found).amin(1).max() < 0.2
    assert explained_variance(pixels, found) > 0.99


def test_more_centroids_explain_more():
    pixels = torch.randn(4000, 16, generator=torch.Generator().manual_seed(3))
    explained = [explained_variance(pixels, learn(pixels, num)) for num in (2, 16, 128)]
    assert explained == sorted(explained)
    assert 0 < explained[0] < explained[2] < 1


def test_learning_repeats_and_leaves_the_global_generator_alone():
    pixels, _ = clusters(4, 100, 1.0)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = learn(pixels, 8)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.equal(first, learn(pixels, 8))


def test_assignment_in_chunks_is_the_nearest_centroid_of_all():
    pixels, centroids = torch.randn(70_000, 4), torch.randn(5, 4)
    assert torch.equal(assign(pixels, centroids), torch.cdist(pixels, centroids).argmin(1))


def test_at_strength_one_every_pixel_is_a_centroid_and_discretizing_again_changes_nothing():
    latents = torch.randn(2, 16, 3, 4, 5)
    once = book().discretize(latents)
    pixels = once.movedim(1, -1).flatten(0, -2)
    assert ((pixels[:, None] == book().centroids).all(-1).any(1)).all()
    assert torch.equal(book().discretize(once), once)


def test_strength_moves_in_proportion_and_zero_changes_no_bit():
    latents = torch.randn(1, 16, 2, 4, 4)
    full, half = book().discretize(latents), book().discretize(latents, 0.5)
    assert torch.allclose(half - latents, 0.5 * (full - latents), atol=1e-6)
    assert book().discretize(latents, 0.0) is latents


def test_a_codebook_is_read_as_it_was_saved(tmp_path: Path):
    book().save(tmp_path / "book.safetensors")
    read = Codebook.load(tmp_path / "book.safetensors")
    assert torch.equal(read.centroids, book().centroids)
    assert (read.latent_format, read.provenance) == ("wan21", {"files": 1})
    with pytest.raises(CodebookError, match="exists already"):
        book().save(tmp_path / "book.safetensors")


@pytest.mark.parametrize("centroids", [torch.full((4, 16), torch.nan), torch.zeros(1, 16), torch.zeros(16)])
def test_a_codebook_of_nan_of_one_centroid_or_of_another_form_is_rejected(centroids: Tensor):
    with pytest.raises(CodebookError):
        book(centroids)


def test_latents_of_other_channels_are_rejected_with_both_numbers():
    with pytest.raises(CodebookError, match="16 channels; the history has 4"):
        book().discretize(torch.zeros(1, 4, 1, 2, 2))


def test_a_file_that_is_no_codebook_is_named(tmp_path: Path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    for name in ("other.safetensors", "text.safetensors", "missing.safetensors"):
        with pytest.raises(CodebookError, match=name):
            Codebook.load(tmp_path / name)


def test_the_command_learns_from_videos_and_from_latents(tmp_path: Path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(ASSETS / "input" / "framepack_red_star.mp4", videos)
    save_file({"latent_tensor": torch.randn(1, 16, 3, 8, 8)}, videos / "one.latent")
    target = tmp_path / "book.safetensors"
    assert main(["codebook", str(videos), str(target), "--size", "16"]) == 0
    assert "16 centroids" in capsys.readouterr().out
    assert Codebook.load(target).provenance["files"] == 2
    assert main(["codebook", str(tmp_path / "none"), str(tmp_path / "b"), "--size", "16"]) == 2
    assert "none" in capsys.readouterr().err
