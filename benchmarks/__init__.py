"""Measurements of speed and memory, always as ratios within one run. Run them by hand; they are no tests."""
