"""Tools beside the pack: a real ComfyUI, the demo, the tests, and a client."""
