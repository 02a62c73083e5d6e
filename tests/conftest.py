"""How the tests are spread over workers: the tests of a file that needs a host stay together on one.

diffusers, the reference of some, imports torchvision: the operators that a mismatched one lacks are defined here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.shim.sitecustomize import mend_torchvision

mend_torchvision()

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before the worker writes the groups into the names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group each file of host tests: its own hosts start once, and a worker has one shared host.

    All browser tests are one group: a page draws on both cores, and two at a time take six times as long to open.
    """
    for item in items:
        if HERE / "browser" in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif HERE / "host" in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(HERE))))
