"""Attention, rotary phases and layers that every backbone shares."""
