"""Describe the shipped workflows and write them into workflows/.

    python -m tools.shipped

`workflows/NAME.json` is what the page opens (format 0.4), `workflows/api/NAME.json` what POST /prompt takes.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from framepack.shapes.evaluate import GUIDANCE

from .blueprint import OUTSIDE, blueprint
from .host import CACHE, REPO, running
from .model_files import CLIP_L, F1, FILES, GGUF, I2V, LLAMA, VAE, VISION, models_of
from .shipped_helios import HELIOS
from .workflows import Graph, Info, Node

log = logging.getLogger(__name__)
FOLDER, BLUEPRINTS = REPO / "workflows", REPO / "subgraphs"
INVERTED, FORWARD = "f1k1_x_g9_f1k1f2k2f16k4_td", "f1k1_x_f16k4f2k2f1k1_g9"
PROMPT = "The girl dances gracefully, with clear movements, full of charm."
SIZE = "about 640 x 640 pixels, 5 s at 30 frames per second = 4 sections"
NEEDS = (
    f"\n\n**Size, time, memory**: {SIZE}. Every section costs the same, however long the video is. Time was not "
    "measured on a card by us yet: the first section tells it, and the bar shows what is left. 16 GB of VRAM hold the "
    "fp8 model; ComfyUI streams from RAM what does not fit (computed, not measured)."
)
BUILT_IN = "\n\n**Size, time, memory**: 64 x 64 pixels, 5 s at 30 frames per second = {sections}. No GPU is needed."
NEEDS_GGUF = (
    "\n\nNeeds the package gguf (`pip install gguf` into ComfyUI's Python) and a GGUF file in models/diffusion_models. "
    "Make one of a bf16 file: `python -m framepack convert FramePackI2V_HY_bf16.safetensors FramePackI2V_HY_Q4_0.gguf "
    "--type Q4_0`. It has 9.5 GB; 5.9 GB of it go to the card, where they fit, and are streamed where they do not. The "
    "rest, for the modulations, stays in memory: 32 GB of it are advised. These sizes are computed; no card was "
    "measured yet."
)


def image_to_video_small() -> Graph:
    """The built-in model: a start image, a prompt, five seconds."""
    return _built_in(
        "image_to_video_small",
        "## A first video, nothing to download\n\nPress **Run**. The model is built into the pack. It knows one "
        "coloured shape (circle, square, triangle, star; red, green, blue, yellow, purple, cyan) that moves right, "
        "left, up or down, slowly or quickly, and may turn.\n\nThen change one thing, and run again: the direction in "
        "**Prompt**, **seconds** in Endpoint Planner, or your own image. Pack History and Endpoint Planner draw what "
        "is packed and planned.\n\n**Reuse**: this order makes the end first and each section sees those after it. A "
        "new prompt for the whole video or another length makes all sections again. In `prompts` of Endpoint Planner, "
        "a change near the beginning of the video keeps the sections after it.",
        "a red star moves to the right on a plain background",
        exact=True,
    )


def loop_small() -> Graph:
    """The built-in model: the last section leads back to the first image."""
    return _built_in(
        "loop_small",
        "## A loop, nothing to download\n\nThe start image is the end image too: **end_image** is on, and the same "
        "latent goes to `start_latent` and `end_latent` of Section Sampler. The last section meets the first. The end "
        "image guides the video and is not part of it, so no frame stands twice where the loop closes. With a released "
        "model (FramePack I2V) connect the same two inputs.",
        "a red star moves slowly on a plain background",
        loop=True,
    )


def _built_in(name: str, note: str, prompt: str, loop: bool = False, exact: bool = False) -> Graph:
    sections = "150 frames, of 5 sections the first ones" if exact else "4 sections, 145 frames"
    g = Graph(name, note + BUILT_IN.format(sections=sections))
    model = g.add("FramePackLoadModel", model_name="framepack_shapes_dit.safetensors")
    clip = g.add("LoadFramePackTextEncoder", text_encoder_name="framepack_shapes_text.safetensors")
    vae = g.add("VAELoader", vae_name="framepack_shapes_vae.safetensors")
    image = g.ask(g.add("LoadImage", image="framepack_red_star.png"), "image")
    positive = g.ask(g.add("CLIPTextEncode", title="Prompt", clip=clip, text=prompt), "text")
    negative = g.add("CLIPTextEncode", title="No prompt", clip=clip, text="")
    size = {"width": 64, "height": 64}
    fitted = g.add("ImageScale", title="To 64 x 64", image=image, upscale_method="area", crop="center", **size)
    start = g.add("VAEEncode", title="Start image", pixels=fitted, vae=vae)
    schedule = g.add("PackHistory", schedule=INVERTED, **size)
    given = {"seconds": 5.0, "fps": 30.0, **size, "start_image": True}
    given |= ({"end_image": True} if loop else {}) | ({"exact_length": True} if exact else {})
    plan = g.ask(g.add("EndpointPlanner", schedule=schedule, start_latent=start, **given), "seconds")
    led = {"cfg": GUIDANCE.cfg, "cfg_above": GUIDANCE.cfg_above, "history_guidance": GUIDANCE.history}
    ends = {"start_latent": start} | ({"end_latent": start} if loop else {})
    return finish(g, sampler(g, model, plan, positive, **led, seed=5, negative=negative, clip=clip, **ends), vae)


class Released:
    """The parts that all workflows of the released models share."""

    def __init__(self, name: str, note: str, model: str = I2V, prompt: str = PROMPT):
        files = [CLIP_L, LLAMA, VAE, VISION] if model == GGUF else [model, CLIP_L, LLAMA, VAE, VISION]
        self.g = Graph(name, note + models_of(files) + (NEEDS_GGUF if model == GGUF else NEEDS))
        self.model = self.load("FramePackLoadModel", [model], model_name=model)
        names = {"clip_name1": CLIP_L, "clip_name2": LLAMA, "type": "hunyuan_video", "device": "default"}
        self.clip = self.load("DualCLIPLoader", [CLIP_L, LLAMA], **names)
        self.vae = self.load("VAELoader", [VAE], vae_name=VAE)
        self.vision = self.load("CLIPVisionLoader", [VISION], clip_name=VISION)
        self.positive = self.g.ask(self.g.add("CLIPTextEncode", title="Prompt", clip=self.clip, text=prompt), "text")
        self.forward = model == F1
        schedule = FORWARD if self.forward else INVERTED
        self.schedule = self.g.add("PackHistory", schedule=schedule, width=640, height=640)

    def load(self, kind: str, files: list[str], **values: Any) -> Node:
        """A loader, with where the page downloads its files from."""
        known = [name for name in files if name in FILES]
        models = [{"name": name, "url": FILES[name][0], "directory": FILES[name][1]} for name in known]
        return self.g.add(kind, models=models, **values)

    def image(self, title: str) -> Node:
        """An image in a size that the model was trained on; outputs image, width, height."""
        loaded = self.g.ask(self.g.add("LoadImage", title=title, image="framepack_red_star.png"), "image")
        return self.g.add("FramePackResolution", image=loaded, base=640, fit="crop")

    def latent(self, image: Node, title: str) -> Node:
        """An image's latent."""
        return self.g.add("VAEEncode", title=title, pixels=image, vae=self.vae)

    def seen(self, image: Node) -> Node:
        """What the vision encoder makes of an image."""
        return self.g.add("CLIPVisionEncode", clip_vision=self.vision, image=image, crop="none")

    def plan(self, **values: Any) -> Node:
        """A plan; it has an image's size if its latent is among the values."""
        given = {"seconds": 5.0, "fps": 30.0, "width": 640, "height": 640, "start_image": True} | values
        return self.g.ask(self.g.add("EndpointPlanner", schedule=self.schedule, **given), "seconds")

    def streamed(self, plan: Node, fps: float | tuple[Node, int] = 30.0, **values: Any) -> Graph:
        """Sample, and decode while the video is written, so that no more than a tile of frames is in memory."""
        unipc = self.g.add("FramePackSolver", solver="unipc")
        values = {"clip": self.clip} | values
        samples = sampler(self.g, self.model, plan, self.positive, cfg=1.0, sampler=unipc, **values)
        video = self.g.add("FramePackVideo", samples=samples, vae=self.vae, fps=fps)
        self.g.add("SaveVideo", video=video, filename_prefix=f"FramePack/{self.g.name}", format="mp4", codec="auto")
        return self.g

    def finish(self, plan: Node, still: bool = False, **values: Any) -> Graph:
        """Sample with the reference's solver, decode and save. In a forward order sections are decoded as they come."""
        unipc = self.g.add("FramePackSolver", solver="unipc")
        if self.forward:
            values["vae"] = self.vae
        values = {"clip": self.clip} | values
        samples = sampler(self.g, self.model, plan, self.positive, cfg=1.0, sampler=unipc, **values)
        return finish(self.g, samples, None if self.forward else self.vae, still)


def image_to_video() -> Graph:
    """The inverted model."""
    note = (
        "## Image to video\n\nFramePack I2V makes the video from its end towards the start image, so that it does not "
        "drift. Change the image, the prompt and the seconds."
    )
    return _from_image(Released("image_to_video", note))


def image_to_video_small_card() -> Graph:
    """The inverted model in GGUF, for 6 to 8 GB."""
    r = Released(
        "image_to_video_small_card",
        "## Image to video on a card of 6 to 8 GB\n\nThe model stays in blocks of 4 bits, in memory and on the card; "
        "each layer is dequantized where it is used. The text encoder is the fp8 one. The video is decoded while it is "
        "saved. A smaller base in FramePack Resolution, or a shorter video, needs less.",
        GGUF,
    )
    image = r.image("Start image")
    start = {"start_latent": r.latent(image, "Start image")}
    return r.streamed(r.plan(**start), clip_vision_output=r.seen(image), **start)


def image_to_video_f1() -> Graph:
    """The forward model."""
    note = (
        "## Image to video, F1\n\nFramePack F1 makes the video in temporal order, with larger motion. Each section is "
        "decoded when it is finished, and Section Sampler plays the video so far. Making it longer keeps what is there "
        "and samples the new sections only."
    )
    return _from_image(Released("image_to_video_f1", note, F1))


def _from_image(r: Released) -> Graph:
    image = r.image("Start image")
    start = {"start_latent": r.latent(image, "Start image")}
    return r.finish(r.plan(**start), clip_vision_output=r.seen(image), **start)


def one_node(info: Info) -> dict[str, Any]:
    """Image to video as a blueprint of one node."""
    asked = [("image", "IMAGE"), ("text", "STRING"), ("seconds", "FLOAT"), ("seed", "INT"), ("model_name", "COMBO")]
    values = {"text": PROMPT, "seconds": 5.0, "seed": 1, "model_name": I2V}
    ends = {name: (OUTSIDE, i, values.get(name)) for i, (name, _) in enumerate(asked)}
    r = Released("FramePack image to video", "A video from an image and a prompt, with FramePack I2V.")
    r.model.values["model_name"], r.positive.values["text"] = ends["model_name"], ends["text"]
    image = r.g.add("FramePackResolution", image=ends["image"], base=640, fit="crop")
    start = {"start_latent": r.latent(image, "Start image")}
    solver = r.g.add("FramePackSolver", solver="unipc")
    given = {"sampler": solver, "clip_vision_output": r.seen(image), "seed": ends["seed"], **start}
    samples = sampler(r.g, r.model, r.plan(seconds=ends["seconds"], **start), r.positive, cfg=1.0, **given)
    images = r.g.add("FramePackVAEDecode", samples=samples, vae=r.vae)
    return blueprint(r.g, info, asked, (r.g.add("CreateVideo", images=images, fps=30.0), "VIDEO"))


def text_to_video() -> Graph:
    """No start image: a zero latent in its place."""
    r = Released(
        "text_to_video",
        "## Text to video\n\nA zero latent stands where the start image would, and is not in the video. The vision "
        "encoder sees a black image. The model was trained for image to video: expect less than with an image.",
        prompt="A sailing boat crosses a calm bay at sunset, gentle waves, cinematic.",
    )
    black = r.g.add("EmptyImage", title="Black", width=384, height=384, batch_size=1, color=0)
    plan = r.plan(width=832, height=480, start_image=False, without_start="zero latent")
    return r.finish(plan, clip_vision_output=r.seen(black))


def start_and_end_frame() -> Graph:
    """The video leads to an image."""
    r = Released(
        "start_and_end_frame",
        "## Start and end frame\n\nThe video begins with one image and leads to another, which is context only. Both "
        "are fitted to the start image's size.",
    )
    start, end = r.image("Start image"), r.image("End image")
    latents = {"start_latent": r.latent(start, "Start image"), "end_latent": r.latent(end, "End image")}
    plan = r.plan(end_image=True, start_latent=latents["start_latent"])
    return r.finish(plan, clip_vision_output=r.seen(start), **latents)


def key_frames() -> Graph:
    """An image in the middle, with a prompt of its own from there on."""
    r = Released(
        "key_frames",
        "## Key frames\n\nAn image stands in the middle of the video, with its own prompt from there on. Chain more "
        "endpoints and key frames; an endpoint without a key frame has a prompt alone.",
    )
    start, middle = r.image("Start image"), r.image("Key frame")
    named = r.g.add("FramePackKeyframe", name="middle", latent=r.latent(middle, "Key frame"))
    prompt = "The girl stops, turns to the camera and smiles."
    point = r.g.add("FramePackEndpoint", seconds=4.8, prompt=prompt, keyframe="middle")
    outside = {"start_latent": r.latent(start, "Start image"), "anchors": named}
    plan = r.plan(seconds=9.6, endpoints=point, start_latent=outside["start_latent"])
    return r.finish(plan, clip_vision_output=r.seen(start), **outside)


def single_frame() -> Graph:
    """One new frame after an image."""
    r = Released(
        "single_frame",
        "## A single frame\n\nOne latent frame is made from the image: the same scene, changed as the prompt says. The "
        "last of its pictures is saved.",
        prompt="The girl now sits at a table by a window and reads a book.",
    )
    r.schedule.values["schedule"] = "f1k1_x_g1_f1k1f2k2f16k4_td"
    image = r.image("Image")
    start = {"start_latent": r.latent(image, "Image")}
    return r.finish(r.plan(seconds=0.1, **start), still=True, clip_vision_output=r.seen(image), **start)


def extend_forwards() -> Graph:
    """F1 goes on from a video."""
    return _extend("extend_forwards", "forwards", F1, "FramePack F1 goes on where a video ends.")


def extend_backwards() -> Graph:
    """The inverted model leads up to a video."""
    return _extend("extend_backwards", "backwards", I2V, "FramePack I2V makes what came before a video.")


def _extend(name: str, direction: str, model: str, note: str) -> Graph:
    said = f"{note} The whole video is encoded in one causal pass. Its sound and its frames per second stay."
    r = Released(name, f"## Extend a video {direction}\n\n{said}", model)
    video = r.g.add("LoadVideo", file="framepack_red_star.mp4")
    images = r.g.add("GetVideoComponents", video=video)
    fitted = r.g.add("FramePackResolution", image=images, base=640, fit="crop")
    heard = {"audio": images[1], "fps": images[2]}
    latent = r.g.add("FramePackVideoEncode", images=fitted, vae=r.vae, extend=direction, **heard)
    first = r.g.add("ImageFromBatch", title="One frame for the vision encoder", image=fitted, batch_index=0, length=1)
    given = {"start_image": False, "without_start": "zero latent", "extend": direction, "video_latent": latent}
    plan = r.plan(**given, fps=images[2])
    return r.streamed(plan, fps=images[2], video_latent=latent, clip_vision_output=r.seen(first))


def sampler(g: Graph, model: Node, plan: Node, positive: Node, cfg: float, seed: int = 1, **values: Any) -> Node:
    """SectionSampler with the numbers to start from."""
    numbers = {"seed": seed, "steps": 25, "cfg": cfg, "guidance": 10.0}
    return g.ask(g.add("SectionSampler", model=model, plan=plan, positive=positive, **numbers, **values), "seed")


def finish(g: Graph, samples: Node, vae: Node | None, still: bool = False) -> Graph:
    """Decode, where the sampler has no VAE itself, and save, a video or its last frame."""
    images = g.add("FramePackVAEDecode", samples=samples, vae=vae) if vae else samples[1]
    if still:
        last = g.add("ImageFromBatch", title="Last frame", image=images, batch_index=4, length=1)
        g.add("SaveImage", images=last, filename_prefix=f"FramePack/{g.name}")
        return g
    video = g.add("CreateVideo", images=images, fps=30.0)
    g.add("SaveVideo", video=video, filename_prefix=f"FramePack/{g.name}", format="mp4", codec="auto")
    return g


WORKFLOWS = (
    *(
        image_to_video_small,
        loop_small,
        image_to_video,
        image_to_video_f1,
        text_to_video,
        start_and_end_frame,
        key_frames,
    ),
    *(single_frame, extend_forwards, extend_backwards, image_to_video_small_card),
    *HELIOS,
)


def page_name(name: str) -> str:
    """The name of a workflow on the page: those that need no download are listed first, the starter before all."""
    return name if name.endswith("_small") else f"released_{name}"


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with running(CACHE / "demo") as host:
        write(host.get("/object_info"))


def write(info: Info) -> None:
    """Write every workflow in both formats, and the blueprint; `info` is what the host tells of its nodes."""
    BLUEPRINTS.mkdir(exist_ok=True)
    file = one_node(info)
    (BLUEPRINTS / f"{file['nodes'][0]['title']}.json").write_text(json.dumps(file, indent=1) + "\n", "utf-8")
    (FOLDER / "api").mkdir(parents=True, exist_ok=True)
    for make in WORKFLOWS:
        graph = make()
        page = json.dumps(graph.page(info), indent=1)
        (FOLDER / f"{page_name(graph.name)}.json").write_text(page + "\n", "utf-8")
        (FOLDER / "api" / f"{graph.name}.json").write_text(json.dumps(graph.api(), indent=1) + "\n", "utf-8")
        log.info("%s: %d nodes", graph.name, len(graph.nodes))


if __name__ == "__main__":
    main()
