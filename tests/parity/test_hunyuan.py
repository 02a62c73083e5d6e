"""Our DiT against diffusers' transformer: the same weights give the same velocity."""

from __future__ import annotations

import pytest
import torch

from tests.parity.reference import Case, groups, models, positions


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@torch.no_grad()
def both(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Our velocity and theirs on random inputs."""
    theirs, ours = models(case)
    b, grid, where = case.batch, (case.height, case.width), positions(case)
    x = torch.randn(b, 16, 9, *grid)
    clean = {k: torch.randn(b, 16, n, *grid) for k, n in (("1", 2), ("2", 2), ("4", 16))}
    text = torch.randn(b, max(case.words) + 2, case.text_dim)
    mask = torch.arange(text.shape[1]) < torch.tensor(case.words)[:, None]
    pooled, image = torch.randn(b, case.pooled_dim), torch.randn(b, 5, 20)
    timestep = torch.rand(b) * 1000
    guidance = torch.full((b,), 9000.0) if case.guidance else None
    indices = {k: torch.tensor(v) for k, v in where.items()}  # in one dimension: theirs takes no batch of them
    expected = theirs(
        x,
        timestep,
        text,
        mask,
        pooled,
        image,
        indices["x"],
        guidance,
        latents_clean=clean["1"],
        indices_latents_clean=indices["1"],
        latents_history_2x=clean["2"],
        indices_latents_history_2x=indices["2"],
        latents_history_4x=clean["4"],
        indices_latents_history_4x=indices["4"],
        return_dict=False,
    )[0]
    got = ours(
        x,
        timestep,
        text,
        pooled,
        guidance,
        mask,
        positions=where["x"],
        history=groups(clean, where),
        image=image if case.image else None,
    )
    return got, expected


@pytest.mark.parametrize("seed", range(24))
def test_the_same_weights_give_the_same_velocity(seed: int):
    case = Case.draw(seed)
    got, expected = both(case)
    assert got.shape == expected.shape
    assert relative(got, expected) < 1e-4, case


def test_the_cases_cover_what_they_should():
    cases = [Case.draw(seed) for seed in range(24)]
    assert {c.batch for c in cases} == {1, 2}
    assert {c.forward for c in cases} == {True, False}
    assert {c.image for c in cases} == {True, False}
    assert any(c.height % 8 and c.width % 4 for c in cases)
    assert any(len(set(c.words)) > 1 for c in cases)
