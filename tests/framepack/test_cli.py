"""The command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from framepack.cli import main
from tests.names import TABLE_1
from tools.host import REPO

RELEASED = "f1k1_x_g9_f1k1f2k2f16k4_td"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_it_runs_without_torch():
    code = "import sys; sys.modules['torch'] = None; from framepack.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "schedule", RELEASED, "--height", "480", "--width", "832", "--json"]
    data = json.loads(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout)
    assert [g["tokens"] for g in data["groups"]] == [1560, 1560, 390, 416]
    assert data["tokens_context"] == 3926
    assert data["groups"][2] == {"frames": 2, "kernel": [2, 4, 4], "side": "future", "tokens": 390}
    expected = {"canonical", "sampling", "generate", "groups", "tail", "tokens_context", "tail_tokens"}
    assert expected | {"tokens_generated", "tokens_total"} <= data.keys()


def test_a_minute_is_fifty_sections(capsys):
    data = json.loads(said(capsys, "plan", RELEASED, "--seconds", "60", "--json"))
    assert len(data["sections"]) == 50
    assert data["num_pix_frames"] == 1801


@pytest.mark.parametrize("name", TABLE_1)
def test_every_name_is_shown(capsys, name: str):
    assert said(capsys, "schedule", name).startswith(name + "\n")
    assert "sections" in said(capsys, "plan", name, "--seconds", "5")


def test_a_plan_beyond_what_models_were_trained_on_says_so(capsys):
    assert "reach 118" in said(capsys, "plan", RELEASED, "--seconds", "13.2", "--gap", "true")
    assert "trained" not in said(capsys, "plan", RELEASED, "--seconds", "13.2")


def test_pictures_are_drawn_into_new_files_only(capsys, tmp_path: Path):
    path = tmp_path / "picture.png"
    said(capsys, "schedule", RELEASED, "--picture", str(path))
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")
    assert main(["plan", RELEASED, "--seconds", "5", "--picture", str(path)]) == 2
    assert "new file" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["schedule", "f1k0_g9"], ["^", "got 0", "Try 1"]),
        (["schedule"], ["--rate"]),
        (["schedule", RELEASED, "--height", "481"], ["Height", "multiple of 16", "481", "480 or 496"]),
        (["plan", RELEASED, "--seconds", "0"], ["got 0"]),
        (["plan", RELEASED, "--seconds", "36000"], ["36000", "at most"]),
        (["plan", RELEASED, "--seconds", "5", "--gap", "far"], ["'far'", "capped:N"]),
    ],
)
def test_a_fault_goes_to_stderr_with_its_remedy(capsys, arguments: list[str], words: list[str]):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    for word in words:
        assert word in err
