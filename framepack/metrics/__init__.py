"""Measures of what a video shows and of how it drifts."""
