"""Run numbered cases, each from a seed of its own, and collect those that fail."""

from __future__ import annotations

import faulthandler
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framepack.errors import FramePackError

HANGS = 300  # seconds after which a case that does not return ends the process with its traceback
MAX_MESSAGE = 8000  # characters of an error
MAX_FAULTS = 20
SHOWN = 400  # characters of a case's input

Case = Callable[[random.Random, list[Any]], None]  # a case adds what it gives to a call to the list


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """What is tested. `bound` is in seconds of this thread, `num` cases in all, `quick` of them in `make test`."""

    name: str
    begin: Callable[[Path], AbstractContextManager[Case]]
    bound: float
    num: int
    quick: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A case that failed."""

    area: str
    number: int
    seed: int
    given: str
    what: str

    def __str__(self) -> str:
        again = f"python -m tools.fuzz {self.area} --only {self.number} --seed {self.seed}"
        return f"{printable(self.what)}\ngiven: {self.given}\nagain: {again}\n"


class TooSlowError(AssertionError):
    """A call took longer than its bound."""


def run(area: Area, numbers: Iterable[int], seed: int = 0) -> list[Fault]:
    """The faults of the cases of these numbers, one for each place in the source, at most `MAX_FAULTS`."""
    faults: dict[str, Fault] = {}
    with tempfile.TemporaryDirectory() as folder, area.begin(Path(folder)) as case:
        for number in numbers:
            if number % 100 == 0:
                faulthandler.dump_traceback_later(HANGS, exit=True)
            given: list[Any] = []
            try:
                check(case, random.Random(f"{area.name} {seed} {number}"), given, area.bound)
            except Exception as fault:  # noqa: BLE001 - what it is looking for
                place = traceback.extract_tb(fault.__traceback__)[-1]
                frames = "".join(traceback.format_tb(fault.__traceback__, limit=-3))
                what = f"{frames}{type(fault).__name__}: {str(fault)[:SHOWN]}"
                where = f"{type(fault).__name__} {place.filename}:{place.lineno}"
                faults.setdefault(where, Fault(area.name, number, seed, shown(given), what))
            if len(faults) >= MAX_FAULTS:
                break
    faulthandler.cancel_dump_traceback_later()
    return list(faults.values())


def check(case: Case, rng: random.Random, given: list[Any], bound: float) -> None:
    """One case. Raises what it should not, TooSlowError, or AssertionError for a message that cannot be shown."""
    began = time.thread_time()
    try:
        case(rng, given)
    except FramePackError as fault:
        check_message(str(fault))
    if (took := time.thread_time() - began) > bound:
        raise TooSlowError(f"{took:.2f} s; the bound is {bound:g} s")


def check_message(text: str) -> None:
    """Raises AssertionError for a message that is empty, too long, or not printable."""
    assert text.strip(), "an error says nothing"
    assert len(text) <= MAX_MESSAGE, f"an error of {len(text)} characters"
    text.encode()
    strange = [c for c in text if not c.isprintable() and c != "\n"]
    assert not strange, f"an error with {strange[0]!r}"


def shown(given: list[Any]) -> str:
    """A case's input, cut where it is long."""
    try:
        text = repr(given)
    except ValueError:  # an integer of too many digits
        text = "with a huge number"
    return printable(text if len(text) <= SHOWN else f"{text[:SHOWN]} ...")


def printable(text: str) -> str:
    """A text that every terminal takes."""
    return text.encode("ascii", "backslashreplace").decode()
