"""``python -m framepack train``: train a FramePack checkpoint, or a LoRA for one, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import FramePackError


def add_train(commands: Any) -> None:
    """Add the command to a parser's commands."""
    train = commands.add_parser("train", help="train a FramePack checkpoint or a LoRA on your videos")
    train.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="a TOML file, see docs/finetune.md")
    train.add_argument("--presets", action="store_true", help="do not train; print the presets and their settings")
    train.add_argument("--export", type=Path, metavar="FILE", help="do not train; write the newest state into a file")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> str:
    from ..shapes.encoders import MEANS  # torch is needed for this command alone
    from ..training import command, presets

    if arguments.presets:
        return "\n".join(f"--- {name}\n{presets.text_of(name)}" for name in presets.names())
    if arguments.config is None:
        raise FramePackError("Name a configuration: python -m framepack train CONFIG.toml. --presets prints presets.")
    if arguments.export:
        return command.export(arguments.config, arguments.export, MEANS)
    return command.train(arguments.config, MEANS)
