"""What a user can do wrong, each with what came, what was expected and what to do."""


class FramePackError(ValueError):
    """A fault of the input, not of the program."""


class LatentSizeError(FramePackError):
    """A picture, clip or latent whose size does not fit."""
