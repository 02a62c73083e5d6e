"""What differs between versions of the host, and what the pack relies on in any: checked inside a real one."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.host.conftest import inside
from tools.host import REPO

BRANCHES, BOUNDARY = (Path(__file__).parent / name for name in ("branches.py", "boundary.py"))


def checks(script: Path) -> list[str]:
    functions = [node for node in ast.parse(script.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [function.name for function in functions if function.name.startswith("check_")]


@cache
def outcomes(script: Path) -> dict[str, str | None]:
    return inside(script, REPO)


@pytest.mark.parametrize("check", checks(BRANCHES))
def test_each_branch_between_versions(check: str):
    assert outcomes(BRANCHES)[check] is None, outcomes(BRANCHES)[check]


@pytest.mark.parametrize("check", checks(BOUNDARY))
def test_the_host_is_as_the_pack_relies_on(check: str):
    assert outcomes(BOUNDARY)[check] is None, outcomes(BOUNDARY)[check]
