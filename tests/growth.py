"""How the time of a call grows with its input: a law that holds on a slow machine as on a fast one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
LEAST = 0.02  # s that a measure lasts, so that the clock's steps do not count
ROUNDS = 3


def growth(run: Callable[[T], Any], small: T, large: T) -> float:
    """How many times as long the call takes for the large input: processor time, the least of some rounds in turn.

    Between inputs that differ `n`-fold, linear time gives about n and quadratic time n squared.
    """
    times = [(_seconds(run, small), _seconds(run, large)) for _ in range(ROUNDS)]
    return min(large for _, large in times) / min(small for small, _ in times)


def _seconds(run: Callable[[T], Any], given: T) -> float:
    began, calls = time.process_time(), 0
    while not calls or time.process_time() - began < LEAST:
        run(given)
        calls += 1
    return (time.process_time() - began) / calls
