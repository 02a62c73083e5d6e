"""Numbers hold on a processor with AVX2 and nothing newer, as most desktops have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OLDER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def test_numeric_tests_pass_with_the_instructions_of_an_older_processor():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "numeric", "tests/framepack"],
        cwd=Path(__file__).parent.parent,
        env=os.environ | OLDER,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
