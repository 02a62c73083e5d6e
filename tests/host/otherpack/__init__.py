"""A stand-in for another pack that registers two ids which this pack registers too."""


class Theirs:
    """A node of the other pack."""

    RETURN_TYPES = ("FramePackMODEL",)
    FUNCTION = "run"
    CATEGORY = "other"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 - the host's name
        return {"required": {"model": ("STRING", {})}}

    def run(self, model):
        return (model,)


NODE_CLASS_MAPPINGS = {"LoadFramePackModel": Theirs, "FramePackSampler": Theirs}
NODE_DISPLAY_NAME_MAPPINGS = {"LoadFramePackModel": "Their loader", "FramePackSampler": "Their sampler"}
