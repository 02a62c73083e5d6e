"""The checks for a GPU machine: what travels there, and how results are kept. tests/host runs the parts at toy size."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu_check import payload
from benchmarks.gpu_check.__main__ import LIMIT, NAMES, parts
from benchmarks.gpu_check.report import write_section
from tools.host import REPO


def test_the_working_tree_leaves_half_of_a_transfer_to_the_payload():
    assert 1e6 < payload.tree_size() < payload.TRANSFER / 2


def test_files_are_split_over_as_few_transfers_as_they_fit():
    sizes = {Path(name): size for name, size in (("a", 6), ("b", 5), ("c", 4), ("d", 3))}
    groups = payload.split(sizes, 10)
    assert sorted(sorted(path.name for path in group) for group in groups) == [["a", "c"], ["b", "d"]]
    with pytest.raises(payload.PayloadError, match="a has"):
        payload.split(sizes, 5)


def test_a_payload_is_unpacked_once_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    comfyui = tmp_path / "comfyui"
    for name in ("main.py", "comfy/sd.py", "web/page.js", "tests/test.py", "comfy/__pycache__/sd.pyc", "models/a.bin"):
        (comfyui / name).parent.mkdir(parents=True, exist_ok=True)
        (comfyui / name).write_text(name)
    first, second = tmp_path / "payload" / "1", tmp_path / "payload" / "2"
    for folder in (first, second):
        folder.mkdir(parents=True)
    payload.pack_host(comfyui, first / "comfyui.zip")
    with zipfile.ZipFile(second / "made-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_for_this_test.py", "here = True")
    for name, value in (("FOLDER", "payload"), ("SITE", "payload/site"), ("HOST", "payload/comfyui")):
        monkeypatch.setattr(payload, name, tmp_path / value)
    found = payload.unpacked()
    assert {p.name for p in payload.HOST.rglob("*") if p.is_file()} == {"main.py", "sd.py"}
    assert found["COMFYUI_PATH"] == str(payload.HOST)
    command = [sys.executable, "-c", "import made_for_this_test"]
    subprocess.run(command, env=os.environ | found, check=True)
    (payload.HOST / "main.py").unlink()
    assert payload.unpacked() == found
    assert not (payload.HOST / "main.py").exists()


def test_without_a_payload_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(payload, "FOLDER", tmp_path / "none")
    assert payload.unpacked() == {}


def test_a_part_replaces_its_own_results_alone(tmp_path: Path):
    file = tmp_path / "results" / "gpu.md"
    for name, line in (("one", "old"), ("two", "kept"), ("one", "new")):
        write_section(file, name, [line])
    text = file.read_text("utf-8")
    assert text.startswith("# On a GPU\n")
    assert text.count("## one") == text.count("## two") == 1
    assert "kept" in text
    assert "new" in text
    assert "old" not in text


def test_every_part_has_a_function_and_takes_at_most_four_minutes():
    assert set(parts()) == set(NAMES)
    assert LIMIT <= 240


def test_what_travels_is_ignored_by_git():
    assert not subprocess.run(["git", "check-ignore", "--quiet", ".payload/1"], cwd=REPO).returncode
