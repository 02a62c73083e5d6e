"""Values, texts, JSON and bytes as no one should send them."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

NUMBERS = (0, 1, -1, 2, 9, 16, 17, 255, 4096, 4097, 2**31, 2**63, 2**64, 10**18, 10**400, 0.1, 0.5, -0.5, 1e-300, 1e300)
NOT_FINITE = (math.nan, math.inf, -math.inf)
TEXTS = ("", " ", "a", "\x00", "\ud800", "é", "٣", "\u202e", "\n", "nan", "1e9", "../x", "a:b", "'\"<>&", "x" * 30_000)
JUNK = (*NUMBERS, *NOT_FINITE, *TEXTS, None, True, False, [], {}, [1], {"a": 1}, [[]], ["1", 0], [None])
ODD = "\x00\t\n\r \"'\\<>&;:+-_.,0٣²éß\u200b\u202e\ud800😀"


def junk(rng: random.Random) -> Any:
    """Any value."""
    return copy.deepcopy(rng.choice(JUNK))


def number(rng: random.Random) -> Any:
    """A number of any size, now and then not finite."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice((*NUMBERS, *NOT_FINITE))
    if kind == 1:
        return rng.uniform(-2, 2) * 10 ** rng.randrange(-3, 6)
    return rng.randrange(-2, 50) if kind == 2 else rng.randrange(0, 5000)


def text(rng: random.Random, start: str, alphabet: str) -> str:
    """A text with some places cut, doubled, swapped or replaced."""
    held = list(start)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(held) + 1)
        some = rng.choice((alphabet, alphabet, ODD))
        match rng.randrange(5):
            case 0:
                held[at : at + 1] = []
            case 1:
                held.insert(at, rng.choice(some))
            case 2:
                held[at : at + 1] = [rng.choice(some)]
            case 3:
                end = at + rng.randrange(1, 8)
                held[at:at] = held[at:end] * rng.choice((1, 1, 2, 50))
            case 4:
                held[at:at] = [rng.choice(some)] * rng.choice((1, 3, 100, 5000))
    return "".join(held)


def data(rng: random.Random, start: Any) -> Any:
    """JSON data with one to three places replaced, removed, added or repeated."""
    held = copy.deepcopy(start)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = _places(held)
        owner, key = rng.choice(places) if places else (None, None)
        if owner is None:
            return junk(rng)
        match rng.randrange(6):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, list):
                owner.insert(key, copy.deepcopy(owner[key]))
            case 1:
                owner[rng.choice(("new", "", "__class__"))] = junk(rng)
            case 2:
                owner[key] = number(rng)
            case 3:
                other, place = rng.choice(places)
                if not isinstance(other, list) or place < len(other):
                    owner[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else other[place])
            case _:
                owner[key] = junk(rng)
    return held


def _places(held: Any) -> list[tuple[Any, Any]]:
    """Every place of a value in nested lists and dicts: its owner and its key."""
    if isinstance(held, dict):
        keys: Any = list(held)
    elif isinstance(held, list):
        keys = range(len(held))
    else:
        return []
    return [place for key in keys for place in ((held, key), *_places(held[key]))]


def some_bytes(rng: random.Random, start: bytes) -> bytes:
    """Bytes with bits flipped, parts cut, doubled or zeroed, or an end cut off."""
    held = bytearray(start)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(held)) if held and rng.random() < 0.5 else rng.randrange(min(len(held), 512) + 1)
        match rng.randrange(6):
            case 0 if at < len(held):
                held[at] ^= 1 << rng.randrange(8)
            case 1:
                del held[at : at + rng.randrange(1, 64)]
            case 2:
                held[at:at] = held[at : at + rng.randrange(1, 64)]
            case 3:
                held[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, b'{"a":1}\n'))
            case 4:
                del held[at:]
            case _:
                held[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(held)
