"""How long a training may take."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Until a time of `time.monotonic`. With `fit` a run's last stage is cut to what fits; else it stops then."""

    deadline: float = math.inf
    fit: bool = False

    @classmethod
    def lasting(cls, seconds: float, fit: bool = False) -> Budget:
        """From now on."""
        return cls(deadline=time.monotonic() + seconds, fit=fit)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - time.monotonic()

    @property
    def over(self) -> bool:
        """Is the time up?"""
        return self.left < 0

    def steps(self, planned: int, seconds: float) -> int:
        """How many steps of so many seconds fit from here on, of those planned."""
        if not self.fit or math.isinf(self.deadline):
            return planned
        return max(min(planned, int(self.left / seconds)), 1)
