"""What a crew's owner and its processes tell each other: plain data and tensors, over a socket."""

from __future__ import annotations

import io
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from ..packing.history import ContextGroup
from ..units import Kernel


def send(connection: Connection, message: dict[str, Any]) -> None:
    """Send a message. Raises OSError where the other side is gone."""
    buffer = io.BytesIO()
    torch.save(message, buffer)
    connection.send_bytes(buffer.getbuffer())


def receive(connection: Connection) -> dict[str, Any]:
    """The next message, of which only plain data and tensors are read. Raises EOFError, OSError."""
    return torch.load(io.BytesIO(connection.recv_bytes()), weights_only=True)


def packed(history: list[ContextGroup]) -> list[dict[str, Any]]:
    """A history as plain data."""
    return [
        {
            "kernel": [group.kernel.t, group.kernel.h, group.kernel.w],
            "latents": group.latents.cpu(),
            "positions": list(group.positions),
            "tail": group.tail,
        }
        for group in history
    ]


def unpacked(data: list[dict[str, Any]], device: torch.device, dtype: torch.dtype) -> list[ContextGroup]:
    """The same as a history again."""
    return [
        ContextGroup(
            kernel=Kernel(*each["kernel"]),
            latents=each["latents"].to(device, dtype),
            positions=tuple(each["positions"]),
            tail=each["tail"],
        )
        for each in data
    ]


def on_cpu(values: dict[str, Any]) -> dict[str, Any]:
    """The tensors among values, on the CPU; nothing else travels."""
    return {name: value.cpu() for name, value in values.items() if isinstance(value, Tensor)}
