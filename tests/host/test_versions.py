"""What differs between versions of the host: each branch, inside a real host."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.host.conftest import inside
from tools.host import REPO

BRANCHES = Path(__file__).parent / "branches.py"
CHECKS = [n.name for n in ast.parse(BRANCHES.read_text()).body if isinstance(n, ast.FunctionDef) and "check_" in n.name]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    return inside(BRANCHES, REPO)


@pytest.mark.parametrize("check", CHECKS)
def test_each_branch(outcomes: dict[str, str | None], check: str):
    assert outcomes[check] is None, outcomes[check]
