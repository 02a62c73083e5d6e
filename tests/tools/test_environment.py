"""The tools start from any Python."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools import environment
from tools.host import REPO


def test_a_requirement_is_missing_where_absent_or_of_another_version():
    from importlib.metadata import version

    there = version("pytest")
    assert environment.missing([f"pytest=={there}", "pytest", "pytest>=8"]) == []
    assert environment.missing(["pytest==0.1", "no-such-package-at-all"]) == ["pytest==0.1", "no-such-package-at-all"]


def test_the_requirements_of_the_tests_are_those_of_the_host_and_more():
    host, test = environment.wanted("host"), environment.wanted("test")
    assert set(host) < set(test)
    assert not any(line.startswith("#") for line in test)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing but its standard library."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@pytest.mark.parametrize("start", [["-m", "tools.client"], ["-I", "tools", "client"]], ids=["module", "portable build"])
def test_a_python_without_the_clients_packages_says_what_to_install(bare: Path, start: list[str]):
    done = subprocess.run([bare, *start, "127.0.0.1:1", "x.json"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{bare} -m pip install aiohttp Pillow" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tool_runs_by_an_isolated_python_as_the_portable_build_has(tmp_path: Path):
    command = [sys.executable, "-I", str(REPO / "tools"), "framepack", "schedule", "inverted", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"canonical"' in done.stdout
    done = subprocess.run([*command[:3], "nothing"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "got 'nothing'" in done.stderr


def test_a_tool_goes_on_in_the_environment_and_ends_as_it_ends(bare: Path, tmp_path: Path):
    """A plain Python starts the same command by the environment's Python, with its arguments and status."""
    tool = tmp_path / "tool.py"
    tool.write_text(
        f"import sys; sys.path.insert(0, {str(REPO)!r})\n"
        "from tools import environment\n"
        "environment.enter('test')\n"
        "import pytest\n"
        "print(sys.argv[1:]); sys.exit(7)\n"
    )
    if environment.VENV.resolve() != Path(sys.prefix).resolve():
        pytest.skip("the tests do not run in .venv")
    done = subprocess.run([bare, tool, "--one", "two words"], capture_output=True, text=True)
    assert done.stdout.strip() == "['--one', 'two words']", done.stderr
    assert done.returncode == 7
