"""What a section store holds by video, and clearing it, from Python and the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from framepack.cli import main
from framepack.pictures.store_picture import draw_store
from framepack.store.inventory import UNNAMED, clear, sections_of, videos_of
from framepack.store.section_store import SectionStore

LATENTS = torch.zeros(1, 16, 9, 8, 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos: one of two sections, one of them locked, and one of a single section; and what is none of ours."""
    store = SectionStore(tmp_path / "sections", 10**9)
    for number, video in enumerate(("a red star", "a red star", "a blue square")):
        assert store.put(f"{number:064x}", LATENTS, {"video": video, "section": number})
    os.utime(store.folder / f"{2:064x}.safetensors", (1, 1))
    assert store.holds(f"{1:064x}"[:64])
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "model.safetensors").write_text("mine too")
    return store.folder


def test_a_store_is_listed_by_video_the_latest_first(folder: Path):
    first, second = videos_of(folder)
    assert (first.title, len(first.sections), first.num_locked) == ("a red star", 3, 1)
    assert (second.title, len(second.sections), second.num_locked) == ("a blue square", 1, 0)
    assert second.size > LATENTS.nbytes
    assert draw_store([first, second], 10**9).size == (960, 88 + 128 + 16)


def test_clearing_leaves_locked_takes_and_files_that_are_not_the_stores(folder: Path):
    assert clear(sections_of(folder))[0] == 3
    assert [path.name for path in sorted(folder.iterdir())] == ["locked", "model.safetensors", "notes.txt"]
    assert clear(sections_of(folder), locked=True)[0] == 1
    assert not list((folder / "locked").iterdir())


def test_a_link_and_a_folder_under_an_entrys_name_are_left_alone(folder: Path, tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (folder / f"{7:064x}.safetensors").symlink_to(tmp_path / "precious")
    (folder / f"{8:064x}.safetensors").mkdir()
    clear(sections_of(folder), locked=True)
    assert (tmp_path / "precious").read_text() == "precious"
    assert (folder / f"{8:064x}.safetensors").is_dir()


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x08\0\0\0\0\0\0\0" + b'{"a": 1}'])
def test_an_entry_that_does_not_say_its_video_is_listed_all_the_same(tmp_path: Path, header: bytes):
    (tmp_path / f"{1:064x}.safetensors").write_bytes(header)
    assert [video.title for video in videos_of(tmp_path)] == [UNNAMED]


def test_the_command_lists_and_clears_by_number_title_and_all(folder: Path, capsys):
    assert main(["store", str(folder)]) == 0
    assert "2 videos" in capsys.readouterr().out
    assert main(["store", str(folder), "--clear", "2"]) == 0
    assert "1 sections removed" in capsys.readouterr().out
    assert main(["store", str(folder), "--clear", "a red star"]) == 0
    assert "2 sections removed" in capsys.readouterr().out
    assert main(["store", str(folder), "--clear", "all", "--locked"]) == 0
    assert "0 videos" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--clear", "9"], ["--clear", "x"], ["--locked"]])
def test_the_command_refuses_what_is_not_there(folder: Path, options: list[str], capsys):
    before = sorted(folder.rglob("*"))
    assert main(["store", str(folder), *options]) == 2
    assert capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_the_folder_is_the_environments_or_the_hosts(folder: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("FRAMEPACK_STORE", str(folder))
    assert main(["store"]) == 0
    monkeypatch.setenv("FRAMEPACK_STORE", str(tmp_path / "nowhere"))
    assert main(["store"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_what_is_said_of_a_section_is_short_and_prints(tmp_path: Path):
    SectionStore(tmp_path, 10**9).put("a" * 64, LATENTS, {"video": "x\ud800" + "y" * 1000})
    (path,) = tmp_path.iterdir()
    size = int.from_bytes(path.read_bytes()[:8], "little")
    said = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["video"]
    assert len(said) <= 200
    assert said.isprintable()
