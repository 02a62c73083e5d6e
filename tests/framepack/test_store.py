"""Finished sections on disk: what is kept is right or is not used."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framepack.store.digest import UnkeyableError, digest
from framepack.store.section_store import ABANDONED, SectionStore
from tests.mounts import mounted

LATENTS = torch.randn(1, 16, 9, 8, 8)
ENTRY = LATENTS.numel() * 4


def store_of(folder: Path, limit: int = 10**9) -> SectionStore:
    return SectionStore(folder / "sections", limit)


def test_what_is_put_is_got_bit_for_bit(tmp_path: Path):
    store = store_of(tmp_path)
    assert store.get("a") is None
    assert store.put("a", LATENTS)
    assert torch.equal(store.get("a"), LATENTS)
    assert torch.equal(store_of(tmp_path).get("a"), LATENTS)
    assert [path.name for path in (tmp_path / "sections").iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_precision_is_kept(tmp_path: Path, dtype: torch.dtype):
    store_of(tmp_path).put("a", LATENTS.to(dtype))
    assert torch.equal(store_of(tmp_path).get("a"), LATENTS.to(dtype))


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 0.999))
def test_an_entry_cut_anywhere_is_never_used(tmp_path_factory, cut: float):
    folder = tmp_path_factory.mktemp("cut")
    store = store_of(folder)
    store.put("a", LATENTS)
    path = folder / "sections" / "a.safetensors"
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    assert store.get("a") is None
    assert not path.exists()
    assert store.put("a", LATENTS)
    assert torch.equal(store.get("a"), LATENTS)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_an_entry_with_a_bit_turned_is_never_used(tmp_path_factory, place: float, bit: int):
    folder = tmp_path_factory.mktemp("turned")
    store = store_of(folder)
    store.put("a", LATENTS)
    path = folder / "sections" / "a.safetensors"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    got = store.get("a")
    assert got is None or torch.equal(got, LATENTS)  # a bit of the header's padding may be free


def test_what_was_used_longest_ago_goes_first(tmp_path: Path):
    store = store_of(tmp_path, limit=int(3.5 * ENTRY))
    for i, key in enumerate("abc"):
        store.put(key, LATENTS)
        os.utime(tmp_path / "sections" / f"{key}.safetensors", (1000 + i, 1000 + i))
    assert store.get("a") is not None  # used now
    store.put("d", LATENTS)
    assert [key for key in "abcd" if store.get(key) is not None] == ["a", "c", "d"]


def test_the_newest_entry_stays_however_small_the_limit(tmp_path: Path):
    store = store_of(tmp_path, limit=1)
    store.put("a", LATENTS)
    store.put("b", LATENTS)
    assert store.get("a") is None
    assert store.get("b") is not None


def test_a_full_disk_is_said_once_and_harms_nothing(tmp_path: Path, monkeypatch, caplog):
    store = store_of(tmp_path)
    store.put("a", LATENTS)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        assert not store.put("b", LATENTS)
        assert not store.put("c", LATENTS)
    assert caplog.text.count("No space left on device") == 1
    assert "The run continues" in caplog.text
    assert store.get("b") is None
    assert torch.equal(store.get("a"), LATENTS)
    assert len(list((tmp_path / "sections").iterdir())) == 1


def test_a_disk_that_fills_up_keeps_what_was_finished(tmp_path: Path, caplog):
    with mounted(tmp_path / "disk", "size=64k"):
        store = store_of(tmp_path / "disk")
        assert [store.put(key, LATENTS) for key in "abc"] == [True, False, False]
        assert caplog.text.count("No space left on device") == 1
        assert "The run continues" in caplog.text
        assert torch.equal(store.get("a"), LATENTS)
        assert [store.get(key) for key in "bc"] == [None, None]
        assert [path.name for path in (tmp_path / "disk" / "sections").iterdir()] == ["a.safetensors"]


def test_on_a_full_disk_entries_of_earlier_runs_make_room_for_this_runs(tmp_path: Path):
    with mounted(tmp_path / "disk", "size=128k"):
        store = store_of(tmp_path / "disk")
        assert [store.put(key, LATENTS) for key in "abc"] == [True] * 3
        for age, key in enumerate("cba"):  # a is the oldest
            past = time.time() - 100 * (age + 1)
            os.utime(store.folder / f"{key}.safetensors", (past, past))
        store.begin_run()
        assert store.get("a") is not None  # this run uses it
        assert [store.put(key, LATENTS) for key in "def"] == [True, True, False]
        assert [key for key in "abcdef" if store.get(key) is not None] == ["a", "d", "e"]


def test_an_entry_under_another_key_is_never_used(tmp_path: Path):
    store = store_of(tmp_path)
    store.put("a", LATENTS)
    (store.folder / "a.safetensors").rename(store.folder / "b.safetensors")
    assert store.get("b") is None
    assert not (store.folder / "b.safetensors").exists()


HEADERS = {
    "null metadata": {"__metadata__": None, "latents": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "no metadata": {"latents": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "an unknown dtype": {
        "__metadata__": {"sha256": ""},
        "latents": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]},
    },
    "no latents": {"__metadata__": {"sha256": ""}},
    "a list": [],
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_an_entry_with_an_odd_header_is_removed(tmp_path: Path, header: object):
    store = store_of(tmp_path)
    store.folder.mkdir()
    text = json.dumps(header).encode()
    (store.folder / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert store.get("a") is None
    assert store.put("a", LATENTS)
    assert torch.equal(store.get("a"), LATENTS)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_an_entry_that_is_no_regular_file_is_not_read(tmp_path: Path, make: Callable[[Path], None]):
    store = store_of(tmp_path)
    store.folder.mkdir()
    make(store.folder / "a.safetensors")
    assert store.get("a") is None  # and does not wait for a writer


def test_a_put_looks_through_the_folder_once_in_a_tenth_of_the_limit(tmp_path: Path, monkeypatch):
    store, looks = store_of(tmp_path, limit=50 * 37_000), []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looks.append(folder) or scandir(folder))
    for i in range(40):
        store.put(str(i), LATENTS)
    assert len(looks) <= 40 / 5 + 1


def test_a_read_only_folder_is_read_and_said_once(tmp_path: Path, caplog):
    with mounted(tmp_path / "disk", "size=1m") as remount:
        store_of(tmp_path / "disk").put("a", LATENTS)
        store_of(tmp_path / "disk").put("cut", LATENTS)
        cut = tmp_path / "disk" / "sections" / "cut.safetensors"
        cut.write_bytes(cut.read_bytes()[:1000])
        remount("ro")
        store = store_of(tmp_path / "disk")
        assert torch.equal(store.get("a"), LATENTS)
        assert store.get("cut") is None
        assert [store.put(key, LATENTS) for key in "bc"] == [False, False]
        assert caplog.text.count("Read-only file system") == 1


def test_an_entry_that_cannot_be_read_now_is_not_thrown_away(tmp_path: Path, monkeypatch, caplog):
    store = store_of(tmp_path)
    store.put("a", LATENTS)

    def failing(path: Path) -> bytes:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        assert store.get("a") is None
        assert store.get("a") is None
    assert caplog.text.count("Too many open files") == 1
    assert torch.equal(store.get("a"), LATENTS)


def test_what_was_read_stays_as_it_was_checked(tmp_path: Path):
    store = store_of(tmp_path)
    store.put("a", LATENTS)
    got, path = store.get("a"), tmp_path / "sections" / "a.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:  # in place, as a failing disk or a stranger would
        file.seek(size // 2)
        file.write(bytes(size // 2))
    assert torch.equal(got, LATENTS)
    assert store.get("a") is None


def test_a_folder_that_goes_away_meanwhile_harms_nothing(tmp_path: Path, monkeypatch):
    store = store_of(tmp_path)
    monkeypatch.setattr(SectionStore, "_sync_folder", lambda self: shutil.rmtree(self.folder))
    assert store.put("a", LATENTS)
    assert store.get("a") is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, caplog):
    (tmp_path / "sections").write_text("a file where the folder should be")
    assert not store_of(tmp_path).put("a", LATENTS)
    assert "Finished sections are not stored" in caplog.text
    assert store_of(tmp_path).get("a") is None


def test_files_that_a_killed_process_left_are_removed(tmp_path: Path):
    store = store_of(tmp_path)
    store.put("a", LATENTS)
    old, new = (tmp_path / "sections" / f"{name}.part" for name in ("old", "new"))
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    past = time.time() - 2 * ABANDONED
    os.utime(old, (past, past))
    store_of(tmp_path).put("b", LATENTS)
    assert not old.exists()
    assert new.exists()  # another process may be writing it


def test_several_processes_may_share_a_folder(tmp_path: Path):
    """Threads with stores of their own: every read is right or none, under writing and making room."""
    wrong = []

    def work(seed: int) -> None:
        store = store_of(tmp_path, limit=4 * ENTRY)
        for i in range(40):
            key = str((seed + i) % 6)
            expected = torch.full_like(LATENTS, float(key))
            got = store.get(key)
            if got is not None and not torch.equal(got, expected):
                wrong.append(key)
            store.put(key, expected)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@dataclass
class Part:
    value: object


VALUES = [
    *(None, True, False, 0, 1, 0.0, 1.0, "", "1", "a", (), (1,), ((1,),), [1, 2], {"a": 1}, {"b": 1}, Part(1), Part(2)),
    *(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2).half(), torch.ones(2), torch.float16, ["ab"], ["a", "b"]),
]


def test_different_contents_have_different_digests():
    digests = [digest({"x": value}) for value in VALUES]
    assert len(set(digests)) == len(VALUES)
    assert digests == [digest({"x": value}) for value in VALUES]


def test_the_order_of_names_does_not_count_but_the_names_do():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1, "b": 2}) != digest({"a": 2, "b": 1})


def test_what_has_no_contents_is_refused_by_its_place():
    with pytest.raises(UnkeyableError, match=r"positive\[0\].hooks is a function"):
        digest({"positive": [{"hooks": test_what_has_no_contents_is_refused_by_its_place}]})
