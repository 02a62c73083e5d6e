"""What the drift study compares: the paper's orders at several schedules, other methods, repair, codebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..methods import METHODS, PACKED
from ..packing.codebook import Codebook
from ..packing.treatment import Treatment
from ..planning.plan import Plan
from ..planning.request import Endpoint
from ..planning.video import make_plan
from ..sampling.guidance import Guidance
from ..schedule.grammar import parse

LED = Guidance(cfg=3.0, cfg_above=0.9)  # by text where the content is decided; by history in one case alone
SIZES = (32, 64, 128, 256, 512)
RECOMMENDED = 128  # centroids
LAMBDA = 0.25  # of equation 5; no value is published
NOISE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to make the videos. `group` is its table, `paper` the row of the paper's that stands beside it.

    `planned` are fields of the plan's request beside schedule and length, `treated` those of the treatment of history,
    `centroids` the size of its codebook, 0 for none. `endpoints` are that many planned endpoints, evenly in time.
    """

    name: str
    group: str
    schedule: str
    paper: str = ""
    history: float = 0.0
    planned: Mapping[str, Any] = field(default_factory=dict)
    treated: Mapping[str, Any] = field(default_factory=dict)
    centroids: int = 0
    endpoints: int = 0
    discrete: bool = False  # with the weights that were trained with the codebook, where there are any

    @property
    def guidance(self) -> Guidance:
        """How its sections are guided."""
        return replace(LED, history=self.history)

    def treatment(self, books: Mapping[int, Codebook]) -> Treatment:
        """What it does to history."""
        return Treatment(**self.treated, codebook=books[self.centroids] if self.centroids else None)

    def plan(self, num_lat_frames: int) -> Plan:
        """Its plan of a video of so many latent frames."""
        step = (num_lat_frames - 1) // (self.endpoints + 1)
        points = tuple(Endpoint(frame=step * i) for i in range(1, self.endpoints + 1))
        return make_plan(parse(self.schedule), num_lat_frames=num_lat_frames, endpoints=points, **self.planned)


ORDERS = ("vanilla", "endpoint", "inverted")
OTHERS = {
    "repeat": "Repeating image-to-video",
    "anchor": "Anchor frames",
    "causal": "Causal attention",
    "noisy": "Noisy history",
    "guided": "History guidance",
}


def order_cases(group: str, past: str, generate: int = 9, tail: str = "td") -> list[Case]:
    """A history in the three orders, as three rows of Table 1."""
    future = "".join(reversed([f"f{part}" for part in past.split("f")[1:]]))
    ahead = f"f1k1_x_g{generate}_{future}_{tail}"
    schedules = (f"{tail}_{past}_g{generate}", f"{tail}_{past}_g{generate}_x_f1k1", ahead)
    return [
        Case(name=f"{order} {group}", group="orders", schedule=schedule, paper=schedule)
        for order, schedule in zip(ORDERS, schedules, strict=True)
    ]


def cases(reduced: bool) -> list[Case]:
    """All cases; the reduced form leaves out the further schedules and codebook sizes."""
    vanilla = METHODS["vanilla"].schedule
    found = order_cases("f16", PACKED)
    if not reduced:
        found += [*order_cases("f64", "f64k8f16k4f4k2f1k1"), *order_cases("f16 g4", PACKED, generate=4)]
    for name, paper in OTHERS.items():
        how = METHODS[name]
        treated = {"noise": how.noise, "causal": how.causal}
        led = {"history": how.history_guidance, "treated": treated}
        found.append(Case(name=name, group="methods", schedule=how.schedule, paper=paper, **led))
    chosen = {"planned": {"importance": "similarity"}}, {"planned": {"importance": "hybrid", "time_weight": LAMBDA}}
    found += [
        Case(name="planned endpoints", group="own", schedule=METHODS["endpoint"].schedule, endpoints=2),
        Case(name="similarity", group="own", schedule=vanilla, **chosen[0]),
        Case(name="hybrid", group="own", schedule=vanilla, **chosen[1]),
        Case(name="+d", group="own", schedule=f"{vanilla}+d", centroids=RECOMMENDED, discrete=True),
        Case(name="repair by statistics", group="repair", schedule=vanilla, treated={"match": 1.0}),
        Case(
            name="repair by noise",
            group="repair",
            schedule=vanilla,
            treated={"noise": NOISE, "noise_above": 0.15},
        ),
    ]
    sizes = (RECOMMENDED,) if reduced else SIZES
    return found + [Case(name=f"codebook {num}", group="codebooks", schedule=vanilla, centroids=num) for num in sizes]
