"""HunyuanVideo's backbone rounds timesteps and guidance as the released implementation does."""

from __future__ import annotations

import pytest
import torch

from framepack.models.memo import KEY, Constants, Store
from tests.backbones import SMALL

pytestmark = pytest.mark.numeric
HUNYUAN = SMALL[0]
SHAPES = ((1, 16, 2, 4, 4), (1, 5, 24))  # latents, words
TIMES = (993.7, 700.1, 131.4)  # bfloat16 has 992, 700 and 131 next to them


def velocity(timestep: float, guidance: float, dtype: torch.dtype, exact: bool, levels: tuple[float, ...] = ()):
    """The velocity of a small model, and the memos that its run filled."""
    model, store = HUNYUAN.model().to(dtype), Store()
    model.exact = exact
    x, text = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype) for shape in SHAPES)
    options = {KEY: Constants(store, levels, weights=0)}
    time, guidance = torch.tensor([timestep]), torch.tensor([guidance])
    with torch.no_grad():
        out = model(x, time, text, torch.ones(1, 12, dtype=dtype), guidance, transformer_options=options)
    return out, store.memos


@pytest.mark.parametrize("timestep", TIMES)
@pytest.mark.parametrize("levels", [(), TIMES], ids=["alone", "from the table"])
def test_timesteps_are_rounded_where_compute_is_bfloat16(timestep: float, levels: tuple[float, ...]):
    rounded = float(torch.tensor(timestep).bfloat16())
    got, memos = velocity(timestep, 6016.0, torch.bfloat16, exact=False, levels=levels)
    assert torch.equal(got, velocity(rounded, 6016.0, torch.bfloat16, exact=True)[0])
    assert ("modulation" in memos) == bool(levels)
    assert ("modulation between" in memos) == (not levels)


def test_timesteps_keep_their_values_where_compute_is_float32():
    got, _ = velocity(TIMES[0], 6016.0, torch.float32, exact=False)
    assert torch.equal(got, velocity(TIMES[0], 6016.0, torch.float32, exact=True)[0])
    assert not torch.equal(got, velocity(992.0, 6016.0, torch.float32, exact=True)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_guidance_of_10_goes_in_as_9984(dtype: torch.dtype):
    got, _ = velocity(500.0, 10_000.0, dtype, exact=False)
    assert torch.equal(got, velocity(500.0, 9984.0, dtype, exact=True)[0])


def test_exact_keeps_timestep_and_guidance_as_given():
    kept, _ = velocity(TIMES[0], 9000.0, torch.float32, exact=True)
    assert not torch.equal(kept, velocity(TIMES[0], 8992.0, torch.float32, exact=True)[0])
    assert not torch.equal(kept, velocity(TIMES[0], 9000.0, torch.float32, exact=False)[0])


def test_levels_that_round_to_one_value_share_a_row():
    _, memos = velocity(993.7, 6016.0, torch.bfloat16, exact=False, levels=(993.7, 993.1, 700.0))
    ((key, _, _),) = memos["modulation"].held
    assert key == (0, (992.0, 700.0))
