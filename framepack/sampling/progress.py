"""Who hears how a plan proceeds; a job is the engine's, of one section."""

from __future__ import annotations

from typing import Any, Protocol

from .solvers import Callback

Job = Any


class Progress(Protocol):
    """Hears how a plan proceeds."""

    def begin(self, job: Job) -> Callback | None:
        """A section is about to be sampled; hears each of its steps."""
        ...

    def loaded(self, job: Job) -> None:
        """A section came from the store."""
        ...

    def locked(self, job: Job, seam: bool) -> None:
        """A section is a locked take; there is a `seam` where its history has changed since it was made."""
        ...

    def done(self, job: Job, key: str | None) -> None:
        """A section is there, under its key in the store or the beginning of it; None where it is not stored."""
        ...


class Quiet:
    """A progress that nobody sees."""

    def begin(self, job: Job) -> None:
        """Nothing."""

    def loaded(self, job: Job) -> None:
        """Nothing."""

    def locked(self, job: Job, seam: bool) -> None:
        """Nothing."""

    def done(self, job: Job, key: str | None) -> None:
        """Nothing."""
