"""Sections on a device without float64, complex numbers and float8."""

from __future__ import annotations

import pytest
import torch

from framepack.models.memo import KEY, Constants, Store
from framepack.nn.layers import sinusoid
from framepack.packing.history import gather
from framepack.planning.video import make_plan
from framepack.sampling.sigmas import flow_sigmas
from framepack.sampling.solvers import SOLVERS
from framepack.schedule.grammar import parse
from tests.backbones import SMALL, Small
from tests.elsewhere import Elsewhere, device, moved

pytestmark = pytest.mark.numeric
SECTION = make_plan(parse("f1k1_x_g3_f1k1f2k2f5k4_tc"), num_lat_frames=13).sections[0]
SIGMAS = flow_sigmas(5, 60)


def section(small: Small, solver: str, where: torch.device) -> torch.Tensor:
    """A section's latents, sampled on a device from inputs of the CPU."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, SECTION.num_lat_frames, 6, 10)
    names = {name for context in SECTION.context for name in context.frames if name is not None}
    known = {name: torch.randn(1, 16, 1, 6, 10).to(where) for name in sorted(names, key=str)}
    model, x, sigmas = small.model(), x.to(where), SIGMAS.to(where)
    if where.type != "cpu":
        moved(model)
    options = {KEY: Constants(Store(), (1000 * SIGMAS[:-1]).tolist(), weights=0)}
    history = gather(SECTION, known, x)

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return small.run(model, x, SECTION.positions, history, timestep=1000 * sigma, **options)

    with torch.no_grad():
        return SOLVERS[solver](velocity, x, sigmas)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("small", SMALL, ids=lambda small: small.name)
def test_a_section_is_the_same_on_a_device_that_lacks_dtypes(small: Small, solver: str):
    expected = section(small, solver, torch.device("cpu"))
    with device() as where:
        got = section(small, solver, where)
        assert isinstance(got, Elsewhere)
        assert (got.cpu() - expected).norm() < 1e-4 * expected.norm()


def test_a_guidance_of_ten_thousand_has_the_same_embedding_on_every_device():
    values = torch.tensor([9984.0, 1000.0, 0.5])
    with device() as where:
        assert (sinusoid(values.to(where)).cpu() - sinusoid(values)).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_the_stand_in_has_none_of_the_dtypes_that_it_lacks(dtype: torch.dtype):
    with device() as where, pytest.raises(TypeError):
        torch.zeros(2).to(dtype).to(where)
