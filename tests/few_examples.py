"""A plugin for pytest that lowers every property test to ten examples, for tools that run the tests many times over."""

from __future__ import annotations

import pytest
from hypothesis import settings

USED = "_hypothesis_internal_use_settings"  # where hypothesis keeps a test's own settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lower the examples."""
    for item in items:
        test = getattr(item, "obj", None)
        if hasattr(test, "hypothesis"):
            few = settings(getattr(test, USED, settings.default), max_examples=10, database=None)
            setattr(getattr(test, "__func__", test), USED, few)
