"""What a user can do wrong, each with what came, what was expected and what to do."""

from __future__ import annotations


class FramePackError(ValueError):
    """A fault of the input, not of the program."""


class ScheduleError(FramePackError):
    """A schedule string that does not parse; its message shows a caret under the fault."""

    def __init__(self, text: str, at: int, fault: str, remedy: str):
        self.text, self.at, self.fault, self.remedy = text, at, fault, remedy
        super().__init__(f"{fault}\n  {_window(text, at)}\n{remedy}")


class PlanError(FramePackError):
    """A video that cannot be planned, or plan JSON that is none."""


class LatentSizeError(FramePackError):
    """A picture, clip or latent whose size does not fit."""


class CheckpointError(FramePackError):
    """A file that is none of ours, or is damaged."""


class VideoError(FramePackError):
    """A video file that does not open, is damaged, or is too short to measure."""


class MissingPackageError(FramePackError):
    """A choice that needs an optional package that is not installed."""


class TooLittleMemoryError(FramePackError):
    """A plan that takes more memory than there is; its message says what would fit."""


def _window(text: str, at: int, width: int = 72) -> str:
    """The part of the text around the fault on one line, with a caret under it on the next."""
    first = max(0, min(at - width // 2, len(text) - width))
    part = "".join(c if c.isprintable() else "?" for c in text[first : first + width])
    return f"{part}\n  {' ' * (at - first)}^"
