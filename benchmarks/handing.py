"""What the farm's driver itself does for a section at 480x832, in CPU time: python -m benchmarks.handing.

It digests all that determines the section, looks for it in the store, and keeps the latents that come back.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from framepack.farm.results import Results
from framepack.job_file import JobFile
from framepack.job_run import Keys, Place, settings_of
from framepack.planning.video import make_plan
from framepack.schedule.presets import resolve


def measure() -> float:
    """Median seconds for a section of a ten-section plan, with conditionings of the released model's size."""
    plan = make_plan(resolve("inverted"), num_lat_frames=91, height=480, width=832)
    words = {"context": torch.randn(1, 512, 4096), "y": torch.randn(1, 768)}
    slots = {"start": torch.randn(1, 16, 1, 60, 104)}
    scale = {"scale": torch.ones(16), "shift": torch.zeros(16)}
    job = JobFile(plan=plan, model="a model", prompts={None: words}, negative=words, slots=slots, **scale)
    keys, times = Keys(job=job, place=Place(threads=1), model="its digest"), []
    with tempfile.TemporaryDirectory() as folder:
        results = Results(job=job, keys=keys, settings=settings_of(job, None), folder=Path(folder))
        for index, section in enumerate(plan.sections):
            begun = time.process_time()
            assert results.stored(index) is None
            made = torch.zeros(1, 16, section.num_lat_frames, 60, 104)
            results.take(index, made)
            times.append(time.process_time() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(f"{measure():.3f} s a section\n")
