"""The pack adds little to the host's start: under 0.3 s, no device, no network, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.conftest import inside
from tools.host import REPO

HERE = Path(__file__).parent
LATER = ("matplotlib", "cv2", "gguf", "diffusers", "ray", "requests", "urllib3")  # imported when used


@pytest.mark.slow
@pytest.mark.timed
def test_loading_the_pack_takes_less_than_three_tenths_of_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRAMEPACK_PACK", str(REPO))
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))  # the second start finds bytecode, as a user's does
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    starts = [inside(HERE / "starting.py", HERE / "otherpack") for _ in range(3)]
    assert min(start["seconds"] for start in starts[1:]) < 0.3
    assert not {name.split(".")[0] for name in starts[0]["modules"]} & set(LATER)
