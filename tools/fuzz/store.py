"""The section store: whatever happens to its files, it gives what was put under a key, or nothing."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from framepack.store.section_store import SectionStore

from . import mutate
from .cases import Case

KEYS = [f"{number:064x}" for number in range(4)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
METADATA = ({}, {"sha256": ""}, {"sha256": "0" * 64}, {"other": "x"}, None)


@contextmanager
def store(folder: Path) -> Iterator[Case]:
    """Puts, gets, and files that change between them."""

    def case(rng: random.Random, given: list[Any]) -> None:
        for path in folder.iterdir():
            path.unlink() if not path.is_dir() else path.rmdir()
        held = SectionStore(folder, rng.choice((0, 1000, 10**9)))
        put: dict[str, torch.Tensor] = {}
        for key in rng.sample(KEYS, rng.randrange(1, 4)):
            put[key] = torch.full((1, rng.randrange(1, 4), 2), float(rng.randrange(9))).to(rng.choice(DTYPES))
            assert held.put(key, put[key])
        given += [{key: value.tolist() for key, value in put.items()}, disturb(rng, folder)]
        for key in KEYS:
            found = held.get(key)
            if found is not None:
                assert key in put, f"{key} was never put"
                assert torch.equal(found, put[key]), f"{key} gives other values"
                assert found.dtype == put[key].dtype

    yield case


def disturb(rng: random.Random, folder: Path) -> str:
    """Something that happens to the files of a store; says what."""
    entries = sorted(path for path in folder.iterdir() if path.is_file())
    if not entries:
        return "nothing"
    path, other = rng.choice(entries), folder / f"{rng.choice(KEYS)}.safetensors"
    match rng.randrange(7):
        case 0 | 1:
            path.write_bytes(changed := mutate.some_bytes(rng, path.read_bytes()))
            return f"{path.name} holds {changed!r}"
        case 2:
            other.write_bytes(path.read_bytes())
            return f"{path.name} is copied to {other.name}"
        case 3:
            path.write_bytes(save({rng.choice(("latents", "x")): torch.ones(2)}, rng.choice(METADATA)))
            return f"{path.name} is another file"
        case 4:
            path.write_bytes(b"")
            return f"{path.name} is empty"
        case 5:
            path.unlink()
            path.mkdir()
            return f"{path.name} is a folder"
    os.utime(path, (rng.choice((0, 2**33)),) * 2)
    return f"{path.name} is of another time"
