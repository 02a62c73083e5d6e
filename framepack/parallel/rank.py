"""One process of a crew: ``python -m framepack.parallel.rank PORT`` joins the others, loads the model and answers.

It ends when its owner does. Faults are told as an answer; the process then goes on.
"""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Client, Connection
from typing import Any

import torch
from torch import Tensor

from ..errors import FramePackError
from ..job_run import DTYPES, Place
from ..models.memo import KEY, Constants, Store
from ..models.packed import PackedDiT
from ..training.parallel import start
from .messages import receive, send, unpacked

SECTIONS = 4  # whose unchanging inputs are kept, such as those with and without guidance


class Rank:
    """The model, and what it was told of sections."""

    def __init__(self, told: dict[str, Any]):
        self.device = start(told["device"])
        if told["threads"]:
            torch.set_num_threads(told["threads"])
        place = Place(device=str(self.device), dtype=told["dtype"], attention=told["attention"])
        self.dtype: torch.dtype = DTYPES[place.dtype]
        self.dit: PackedDiT = place.load(told["model"])
        self.store = Store()
        self.sections: dict[str, dict[str, Any]] = {}

    @torch.no_grad()
    def velocity(self, told: dict[str, Any]) -> Tensor:
        """The velocity of a section ``b c t h w``, in float32 on the CPU."""
        fixed = self._section(told)
        x, timestep = (self._placed(told[name]) for name in ("x", "timestep"))
        kept = {KEY: Constants(self.store, told["levels"], "weights")}
        given = {**fixed["inputs"], "positions": fixed["positions"], "history": fixed["history"]}
        made = self.dit(x, timestep.float(), fixed["context"], transformer_options=kept, **given)
        return made.float().cpu()

    def _section(self, told: dict[str, Any]) -> dict[str, Any]:
        """What does not change from step to step, by its digest; it is sent once."""
        if "fixed" in told:
            fixed = told["fixed"]
            self.sections[told["section"]] = {
                "context": self._placed(fixed["context"]),
                "inputs": {name: self._placed(value) for name, value in fixed["inputs"].items()},
                "positions": fixed["positions"],
                "history": unpacked(fixed["history"], self.device, self.dtype),
            }
            self.sections = dict(list(self.sections.items())[-SECTIONS:])
        return self.sections[told["section"]]

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)


def serve(owner: Connection) -> None:
    """Answer until the owner is gone."""
    rank: Rank | None = None
    while True:
        told = receive(owner)
        try:
            if rank is None:
                rank = Rank(told)
                send(owner, {"ready": os.getpid()})
            else:
                made = rank.velocity(told)
                send(owner, {"made": made if int(os.environ["RANK"]) == 0 else None})
        except FramePackError as fault:
            send(owner, {"fault": str(fault)})
        except Exception as fault:  # noqa: BLE001 - the owner raises it
            send(owner, {"fault": f"{type(fault).__name__}: {fault}"})


def main() -> None:
    """Meet the owner at the port that the command line names; the key is in the environment."""
    key = bytes.fromhex(os.environ.pop("FRAMEPACK_CREW"))
    with Client(("127.0.0.1", int(sys.argv[1])), authkey=key) as owner:
        send(owner, {"rank": int(os.environ["RANK"])})
        try:
            serve(owner)
        except (EOFError, OSError):
            os._exit(0)  # the owner is gone; the others may wait in an exchange, which nothing else ends


if __name__ == "__main__":
    main()
