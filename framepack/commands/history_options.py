"""Options of the command line for the history that sections see; docs/drift.md describes them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..planning.choice import ESTIMATES, FIRST_STEPS
from ..planning.importance import IMPORTANCE
from ..planning.pins import read_pins
from ..units import RELEASED


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Which frames of history count."""
    names = ", ".join(IMPORTANCE)
    parser.add_argument("--importance", default="by_time", metavar="NAME", help=f"which history counts: {names}")
    parser.add_argument("--time-weight", type=float, default=1.0, metavar="LAMBDA", help="of hybrid")
    parser.add_argument("--estimate", default=FIRST_STEPS, metavar="NAME", help=", ".join(ESTIMATES))
    parser.add_argument("--pin", action="append", default=[], metavar="LINE", help="such as 8-10s: 0-1.2s; repeatable")


def choice_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those options as fields of a plan's request. Raises FramePackError."""
    return {
        "importance": arguments.importance,
        "time_weight": arguments.time_weight,
        "estimate": arguments.estimate,
        "pins": read_pins("\n".join(arguments.pin), arguments.fps, RELEASED),
    }


def add_treatment(parser: argparse.ArgumentParser) -> None:
    """What is done to history."""
    parser.add_argument("--match", type=float, default=0.0, metavar="0-1", help="repair by the start's statistics")
    parser.add_argument("--history-noise", type=float, default=0.0, metavar="SIGMA", help="noise level of history")
    parser.add_argument("--codebook", type=Path, metavar="FILE", help="discrete history")
    parser.add_argument("--codebook-strength", type=float, default=1.0, metavar="0-1")
    parser.add_argument("--causal", action="store_true", help="history sees only itself")


def treatment_of(arguments: argparse.Namespace) -> Any:
    """Those options as a Treatment, for the built-in model. Raises FramePackError."""
    from ..packing.codebook import Codebook  # torch is needed where history is treated
    from ..packing.treatment import Treatment

    book = Codebook.load(arguments.codebook) if arguments.codebook else None
    if book:
        book.check(RELEASED.channels, "built-in")
    return Treatment(
        match=arguments.match,
        noise=arguments.history_noise,
        codebook=book,
        strength=arguments.codebook_strength,
        causal=arguments.causal,
    )
