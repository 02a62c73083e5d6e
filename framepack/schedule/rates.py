"""Any compression rate as a schedule (paper section 3.1, equations 1 to 3).

A rate is the context's length in frames of full length. Terms 1 + 1/lambda + 1/lambda^2 + ... are one frame each;
with lambda 2 the last term stands twice, so that the series is 2 exactly. The digits of what is missing then add
terms (2.625 = 2 + 1/2 + 1/8), and those of what is too much drop some. Padding is left out of a rate.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ..errors import RateError, quoted
from ..units import BASE, Kernel
from .grammar import MAX_KERNEL, Group, Schedule

NUM_TERMS = 7  # down to 1/64 with lambda 2; more where the rate has finer digits
MAX_RATE = 64
MAX_LAMBDA = 64


def term_kernel(term: int, lam: int = 2) -> Kernel:
    """The kernel through which one frame is 1 / lam^term of its full length: (1, 2, 2), (1, 2, 4), (1, 4, 4), ..."""
    return Kernel(1, BASE.h * lam ** (term // 2), BASE.w * lam ** (term - term // 2))


def schedule_of_rate(rate: float | str | Fraction, *, lam: int = 2, generate: int = 9) -> Schedule:
    """The vanilla schedule of a rate, exact to the last term that a kernel can have. Raises RateError.

    Its `rate` is the one reached.
    """
    wanted = _read(rate, lam)
    most = 2 * int(math.log(MAX_KERNEL, lam) + 1e-9) + 1
    num_terms = min(NUM_TERMS, most)
    while num_terms < most and (wanted * lam ** (num_terms - 1)).denominator != 1:
        num_terms += 1
    units = round(wanted * lam ** (num_terms - 1))  # of the last term
    if units == 0:
        least = f"1/{lam ** (num_terms - 1)}"
        raise RateError(str(rate), 0, f"The smallest rate with lambda {lam} is {least}; got {rate}.", f"Try {least}.")
    counts = _counts(units, num_terms, lam)
    groups = [
        Group(num_lat_frames=count, kernel=term_kernel(term, lam), side="past")
        for term, count in reversed(list(enumerate(counts)))
        if count
    ]
    return Schedule(generate=generate, past=tuple(groups))


def _read(rate: float | str | Fraction, lam: int) -> Fraction:
    if not 2 <= lam <= MAX_LAMBDA:
        fault = f"Lambda is a whole number from 2 to {MAX_LAMBDA}; got {quoted(lam)}."
        raise RateError(quoted(lam), 0, fault, "Try 2.")
    try:
        wanted = _number(str(rate))
    except (ValueError, ZeroDivisionError):  # str() refuses numbers of thousands of digits
        wanted = None
    if wanted is None or not 0 < wanted <= MAX_RATE:
        fault = f"A rate is a number above 0, at most {MAX_RATE}; got {quoted(rate)}."
        raise RateError(quoted(rate), 0, fault, "Try 2.625.")
    return wanted


def _number(text: str) -> Fraction | None:
    """A number above 0, or None. ValueError, ZeroDivisionError."""
    # First as a float, which reads any exponent at once: 1e9999999 as a fraction has as many digits.
    if len(text) > 32 or ("/" not in text and not 0 < float(text) <= MAX_RATE):
        return None
    return Fraction(text)


def _counts(units: int, num_terms: int, lam: int) -> list[int]:
    """How many frames go through each term's kernel, so that they cost so many of the last term."""
    series = [1] * num_terms
    series[-1] += lam == 2
    have = sum(count * lam ** (num_terms - 1 - term) for term, count in enumerate(series))
    digits = _digits(abs(units - have), num_terms, lam)
    if units >= have:
        return [count + digit for count, digit in zip(series, digits, strict=True)]
    if lam == 2:
        return [count - digit for count, digit in zip(series, digits, strict=True)]
    return _digits(units, num_terms, lam)


def _digits(units: int, num_terms: int, lam: int) -> list[int]:
    """Digits in base lam, the first one unbounded, the last one of weight 1."""
    digits = []
    for term in range(num_terms):
        digit, units = divmod(units, lam ** (num_terms - 1 - term))
        digits.append(digit)
    return digits
