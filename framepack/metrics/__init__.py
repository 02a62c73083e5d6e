"""Measures of finished videos, without downloaded weights, and the start-end contrast that shows drift."""
