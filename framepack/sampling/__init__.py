"""Noise levels, solvers and the loop over sections."""
