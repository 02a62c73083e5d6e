"""The host's interrupt, for work outside its sampling."""

from __future__ import annotations

import comfy.model_management


def poll() -> None:
    """Raises the host's own exception where the user has cancelled the run. Cheap: call it in loops."""
    comfy.model_management.throw_exception_if_processing_interrupted()
