"""``python -m framepack train``: train a FramePack checkpoint, or a LoRA for one, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_train(commands: Any) -> None:
    """Add the command to a parser's commands."""
    train = commands.add_parser("train", help="train a FramePack checkpoint or a LoRA on your videos")
    train.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file, see docs/finetune.md")
    train.add_argument("--export", type=Path, metavar="FILE", help="do not train; write the newest state into a file")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> str:
    from ..shapes.encoders import MEANS  # torch is needed for this command alone
    from ..training import command

    if arguments.export:
        return command.export(arguments.config, arguments.export, MEANS)
    return command.train(arguments.config, MEANS)
