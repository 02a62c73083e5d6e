"""The packed history: frames to tokens through kernels, and where those tokens stand."""
