"""Times as people write them: ``2.5s``, ``2,5 s``, ``0:05``, ``1:02:03.5``, and spans of them with any dash.

A time that could mean two things is refused: nothing is read as something else.
"""

from __future__ import annotations

import re

from ..errors import FramePackError

DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # hyphens, the en and em dash, the minus sign
COLONS = ":\uff1a"  # the second is that of Chinese and Japanese keyboards
MAX_TIMES = 40  # characters of a span
_TIME = re.compile(r"\s*([0-9]{1,6}(?::[0-9]+)*)(?:([.,])([0-9]{1,20}))?(?:\s*(seconds?|secs?|s|\u79d2)(?!\w))?", re.I)
_TO = re.compile(rf"\s*(?:[{DASHES}]|to\b)", re.I)


class TimecodeError(FramePackError):
    """Times that are none, or that could mean two things. `fault` is a clause about 'it', the line."""

    def __init__(self, fault: str):
        self.fault = fault
        super().__init__(f"{fault[0].upper()}{fault[1:]}. Write seconds, such as 2.5s, or a timecode, such as 0:05.")


def read_span(text: str, at: int = 0) -> tuple[float, float | None, int]:
    """Start, end or None in seconds, and where the times end in the text, which begin at `at`. Raises TimecodeError."""
    first = _TIME.match(text, at)
    if first is None:
        raise TimecodeError("it does not begin with times and a colon")
    start, end = _seconds(first), first.end()
    to = _TO.match(text, end)
    if to is None:
        return start, None, _checked(text, at, end)
    second = _TIME.match(text, to.end())
    if second is None:
        raise TimecodeError("there is no time after the dash")
    for one, other in ((first, second), (second, first)):
        if ":" in one[1] and ":" not in other[1] and not other[4] and float(other[1]):
            raise TimecodeError(f"{other[0].strip()} beside the timecode {one[0].strip()} may be seconds or minutes")
    return start, _seconds(second), _checked(text, at, second.end())


def _checked(text: str, at: int, end: int) -> int:
    """The end of the times, if they are as long as times are, and no more digits follow."""
    if end - at > MAX_TIMES:
        raise TimecodeError(f"its times have more than {MAX_TIMES} characters")
    if re.match(r"[.,]?[0-9]", text[end : end + 2]):
        raise TimecodeError("it does not begin with times and a colon")
    return end


def _seconds(found: re.Match[str]) -> float:
    """The seconds of one time. Raises TimecodeError."""
    whole, mark, fraction = found[1].split(":"), found[2], found[3]
    if mark == "," and len(fraction) == 3 and whole != ["0"]:
        value = f"{whole[-1]},{fraction}"
        raise TimecodeError(f"{value} may be {whole[-1]}.{fraction} or {whole[-1]}{fraction}")
    if len(whole) > 3:
        raise TimecodeError(f"{found[1]} has more than hours, minutes and seconds")
    for part in whole[1:]:
        if len(part) != 2 or int(part) > 59:
            raise TimecodeError(f"{found[1]} is no timecode: after a colon come two digits up to 59")
    minutes = 0
    for part in whole[:-1]:
        minutes = 60 * minutes + int(part)
    return 60.0 * minutes + float(f"{whole[-1]}.{fraction or 0}")
