"""Workflows for Helios, Base and Distilled; `tools.shipped` writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .workflows import Graph, Node

SCHEDULE = "f1k1_x_f16k4f2k2f1k1_g9"
VAE, TEXT = "wan_2.1_vae.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
REPACKAGED = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
FILES = {VAE: (f"{REPACKAGED}/vae/{VAE}", "vae"), TEXT: (f"{REPACKAGED}/text_encoders/{TEXT}", "text_encoders")}
SIZE = {"width": 640, "height": 384}
FPS, SECONDS, LONG = 24.0, 5.5, 22.0  # four sections of 33 frames, and sixteen
BASE, DISTILLED = "base", "distilled"
FOLDERS = {BASE: "Helios-Base/", DISTILLED: "Helios-Distilled/"}  # in models/diffusion_models
PROMPT = "A small boat with a red sail glides over a calm bay at sunset while gulls circle above it, cinematic light."
NEGATIVE = "overexposed, static, blurred, subtitles, low quality, deformed hands, extra fingers, a frozen picture"
ABOUT = {  # of the variants
    BASE: "Helios Base takes 50 steps a section with cfg 5, for the best quality.",
    DISTILLED: "Helios Distilled takes 6 steps a section without cfg: three stages from small to large, 2 steps each.",
}
NEEDS = (
    "\n\n**Models**: download the folder `transformer` of BestWishYsh/{name} from Hugging Face (14B, Apache-2.0, about "
    "28 GB) as the folder **models/diffusion_models/{name}**, its index among its files. ComfyUI offers to download "
    "the text encoder and the VAE, those of Wan 2.1 (about 7 GB). On smaller cards set weight_dtype to "
    "fp8_e4m3fn_scaled."
    "\n\n**Size, time, memory**: 640 x 384 pixels, {seconds:g} s at 24 frames per second = {sections} sections. Every "
    "section costs the same, however long the video is. No card was measured by us yet."
    "\n\n**Reuse**: the order is forward, so a longer video keeps its sections, and a new prompt makes those from "
    "there on."
)


class Helios:
    """The parts that all workflows of a variant share."""

    def __init__(self, task: str, variant: str, title: str, about: str, seconds: float = SECONDS):
        folder, self.seconds = FOLDERS[variant], seconds
        needs = NEEDS.format(name=folder[:-1], seconds=seconds, sections=round(seconds * FPS / 33))
        note = f"## {title}, Helios {variant.capitalize()}\n\n{about} {ABOUT[variant]}{needs}"
        self.g = g = Graph(f"helios_{task}_{variant}", note)
        self.variant, self.heard = variant, None  # an extended video's sound and frames per second
        self.model = g.add("FramePackLoadModel", model_name=folder)
        self.clip = self.load("CLIPLoader", TEXT, clip_name=TEXT, type="wan", device="default")
        self.vae = self.load("VAELoader", VAE, vae_name=VAE)
        self.positive = g.ask(g.add("CLIPTextEncode", title="Prompt", clip=self.clip, text=PROMPT), "text")
        self.schedule = g.add("PackHistory", schedule=SCHEDULE, **SIZE)

    def load(self, kind: str, name: str, **values: Any) -> Node:
        """A loader, with where the page downloads its file from."""
        return self.g.add(kind, models=[{"name": name, "url": FILES[name][0], "directory": FILES[name][1]}], **values)

    def fitted(self, images: Node) -> Node:
        """Images in the plan's size."""
        given = {"upscale_method": "lanczos", "crop": "center", **SIZE}
        return self.g.add("ImageScale", title="To 640 x 384", image=images, **given)

    def finish(self, start_image: bool = False, planned: dict[str, Any] | None = None, **outside: Any) -> Graph:
        """Plan, sample, decode and save: each section as it is finished, or all with the sound of an extended video."""
        g, heard = self.g, self.heard
        given = {
            "seconds": self.seconds,
            "fps": heard[1] if heard else FPS,
            "start_image": start_image,
            "without_start": "zero latent",
        }
        wanted = given | SIZE | (planned or {})
        plan = g.ask(g.add("EndpointPlanner", schedule=self.schedule, model=self.model, **wanted), "seconds")
        samples = g.add(
            "SectionSampler",
            model=self.model,
            plan=plan,
            positive=self.positive,
            **({"seed": 1, "guidance": 1.0, "noise": "in turn"} | self.sampling() | outside),
            **({} if heard else {"vae": self.vae}),
        )
        if heard:
            video = g.add("FramePackVideo", samples=samples, vae=self.vae, fps=heard[1])
        else:
            video = g.add("CreateVideo", images=samples[1], fps=FPS)
        g.add("SaveVideo", video=video, filename_prefix=f"FramePack/{g.name}", format="mp4", codec="auto")
        return g

    def sampling(self) -> dict[str, Any]:
        """Steps, guidance and sampler as released."""
        if self.variant == BASE:
            negative = self.g.add("CLIPTextEncode", title="Negative prompt", clip=self.clip, text=NEGATIVE)
            solver = self.g.add("FramePackSolver", solver="helios")
            return {"steps": 50, "cfg": 5.0, "negative": negative, "sampler": solver}
        given = {"variant": "distilled", "steps": "2, 2, 2", "double_first": True, "num_lat_frames": 9}
        return {"steps": 6, "cfg": 1.0, "sampler": self.g.add("FramePackPyramid", **given, **SIZE)}


def text_to_video(variant: str) -> Graph:
    """A prompt alone."""
    about = "The video is made from the prompt, in sections of 33 frames at 24 a second."
    return Helios("text_to_video", variant, "Text to video", about).finish()


def image_to_video(variant: str) -> Graph:
    """A start image, and a still of it."""
    about = (
        "The video goes on from the image, which every section sees; it is context and not a frame of the video. A "
        "still clip of it stands before the first section."
    )
    h = Helios("image_to_video", variant, "Image to video", about)
    start, still = _start(h)
    return h.finish(start_image=True, start_latent=start, still_latent=still)


def repair(variant: str) -> Graph:
    """A long video from an image, with the authors' own repair of drift."""
    about = (
        "A long video from an image, with the repair of drift that Helios's authors describe: where the mean and the "
        "variance of earlier sections leave those of the start by more than 0.15, the model sees these sections "
        "through noise of level 0.1. Raise **match** in FramePack Repair if colours still change."
    )
    h = Helios("repair", variant, "Long image to video with drift repair", about, LONG)
    start, still = _start(h)
    treated = h.g.add("FramePackRepair", match=0.0, noise=0.1, noise_above=0.15)
    given = {"start_latent": start, "still_latent": still, "history": treated}
    return h.finish(start_image=True, **given)


def _start(h: Helios) -> tuple[Node, Node]:
    """A start image's latent, and a still clip of it."""
    loaded = h.g.add("LoadImage", title="Start image", image="framepack_red_star.png")
    image = h.fitted(h.g.ask(loaded, "image"))
    start = h.g.add("VAEEncode", title="Start image", pixels=image, vae=h.vae)
    return start, h.g.add("FramePackStill", image=image, vae=h.vae, section_length=9)


def extend(variant: str) -> Graph:
    """A video that goes on."""
    about = (
        "The video goes on where it ends. It is encoded in clips of 33 frames from its end backwards; frames that fill "
        "no clip are left out at its beginning. Its sound and its frames per second stay."
    )
    h = Helios("extend", variant, "Extend a video", about)
    images = h.g.add("GetVideoComponents", video=h.g.add("LoadVideo", file="framepack_red_star.mp4"))
    h.heard = images[1], images[2]
    given = {"extend": "forwards", "model": h.model, "section_length": 9, "audio": images[1], "fps": images[2]}
    latent = h.g.add("FramePackVideoEncode", images=h.fitted(images), vae=h.vae, **given)
    return h.finish(planned={"extend": "forwards", "video_latent": latent}, video_latent=latent)


def _made(task: Callable[[str], Graph], variant: str) -> Callable[[], Graph]:
    return lambda: task(variant)


HELIOS = (
    *(_made(task, v) for task in (text_to_video, image_to_video, extend) for v in (BASE, DISTILLED)),
    _made(repair, DISTILLED),
)
