"""Faults of a user's input. Each message states what is wrong, the value given and what to do."""

from __future__ import annotations

import re
import reprlib

MAX_MESSAGE = 2000  # characters
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 60


class FramePackError(ValueError):
    """A fault of the input, not of the program.

    Its message is safe to log and to show: every character prints in UTF-8, and its length is bounded.
    """

    def __init__(self, message: str):
        super().__init__(printable(message, MAX_MESSAGE))


def printable(text: str, most: int) -> str:
    """The text in at most `most` characters; line breaks stay, other characters that do not print are escaped.

    Lone surrogates and control characters come from JSON and clipboards; a log's stream fails on them.
    """
    safe = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text[: most + 1])
    return safe if len(safe) <= most else safe[: most - 3] + "..."


def quoted(value: object) -> str:
    """A value as a message quotes it: text in quotes, anything else as Python writes it, in at most 100 characters."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        text = "a number of thousands of digits"
    return printable(text, 100)


class ScheduleError(FramePackError):
    """A schedule string that is not valid; the message has a caret under the fault."""

    what = "schedule"

    def __init__(self, text: str, at: int, fault: str, remedy: str):
        self.text, self.at, self.fault, self.remedy = text, at, fault, remedy
        super().__init__(f"{fault}\n  {_window(text, at)}\n{remedy}")

    @property
    def marked(self) -> str:
        """The message for a proportional font: no caret, the character at fault stands between » and « in the text."""
        first, part = _part(self.text, self.at)
        at, end = self.at - first, self.end - first
        return f"{self.what} {part[:at]}»{part[at:end] or '…'}«{part[end:]}: {self.fault} {self.remedy}"

    @property
    def end(self) -> int:
        """Where the word or the number at fault ends."""
        return self.at + len(re.match(r"[a-zA-Z]+|[0-9]+|.?", self.text[self.at :], re.DOTALL)[0])


class RateError(ScheduleError):
    """A compression rate that no schedule has."""

    what = "rate"


class PlanError(FramePackError):
    """A video that cannot be planned, or JSON that is not a valid plan."""


class LatentSizeError(FramePackError):
    """A picture, clip or latent whose size does not fit."""


class CheckpointError(FramePackError):
    """A file that the pack cannot read: of an unknown kind, or damaged."""


class VideoError(FramePackError):
    """A video file that does not open, is damaged, or is too short to measure."""


class CodebookError(FramePackError):
    """A codebook that is none, is damaged, or is of another latent format."""


class SamplingError(FramePackError):
    """A section whose latents are not finite."""


class LostTakeError(FramePackError):
    """A section that is locked to a take that is not there, or does not fit."""

    def __init__(self, index: int, take: str, why: str):
        super().__init__(
            f"Section {index + 1} is locked to take {take}, which {why}. Unlock the section in takes, and it is "
            "sampled again."
        )


class MissingPackageError(FramePackError):
    """A choice that needs an optional package that is not installed."""


class TooLittleMemoryError(FramePackError):
    """A plan that needs more memory than is available; the message says what would fit."""


def _part(text: str, at: int, width: int = 72) -> tuple[int, str]:
    """The part of the text around the fault on one line, and where in the text it begins."""
    first = max(0, min(at - width // 2, len(text) - width))
    return first, "".join(c if c.isprintable() else "?" for c in text[first : first + width])


def _window(text: str, at: int) -> str:
    """The part of the text around the fault, with a caret under it on the next line."""
    first, part = _part(text, at)
    return f"{part}\n  {' ' * (at - first)}^"
