"""How the tests are spread over workers: the tests of a file that needs a host stay together on one.

diffusers, the reference of some, imports torchvision: the operators that a mismatched one lacks are defined here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.shim.sitecustomize import mend_torchvision

mend_torchvision()

HERE = Path(__file__).parent
OF_HOSTS = tuple(HERE / name for name in ("host", "browser"))


@pytest.hookimpl(tryfirst=True)  # before the worker writes the groups into the names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group each file of host and browser tests: its own hosts start once, and a worker has one shared host."""
    for item in items:
        if any(folder in item.path.parents for folder in OF_HOSTS):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(HERE))))
