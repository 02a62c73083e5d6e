"""What is tested, and how much of it."""

from __future__ import annotations

from .cases import Area
from .drawing import drawing
from .files import files
from .plans import plans, schedules, timelines
from .prompts import BOUND, prompts
from .store import store

AREAS = {
    area.name: area
    for area in (
        Area(name="schedules", begin=schedules, bound=1.0, num=200_000, quick=5000),
        Area(name="plans", begin=plans, bound=10.0, num=200_000, quick=5000),
        Area(name="timelines", begin=timelines, bound=2.0, num=200_000, quick=5000),
        Area(name="prompts", begin=prompts, bound=BOUND, num=20_000, quick=300),
        Area(name="drawing", begin=drawing, bound=6.0, num=20_000, quick=300),
        Area(name="files", begin=files, bound=2.0, num=20_000, quick=300),
        Area(name="store", begin=store, bound=1.0, num=20_000, quick=300),
    )
}
