"""Random input for everything that takes input: nothing but a FramePackError may come out, and in bounded time."""
