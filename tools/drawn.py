"""Draw the pack's pictures: icon, banner, the workflows' thumbnails and the moving picture of the README.

    python -m tools.drawn [--videos FOLDER]

Thumbnails of workflows that need no download are frames of their own videos, which FOLDER holds as NAME_00001_.mp4. The
others show the plan that their workflow makes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
from PIL import Image, ImageDraw

from framepack.models.helios import HELIOS_14B
from framepack.pictures.drawing import font
from framepack.pictures.plan_picture import draw_plan
from framepack.planning.request import Endpoint, Extension
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.schedule.presets import PRESETS

from .host import REPO
from .shipped_helios import SCHEDULE as HELIOS

WORKFLOWS, DOCS, WEB = REPO / "workflows", REPO / "docs", REPO / "web"
INK, PAPER, ORANGE, BLUES = "#1d2733", "#ffffff", "#e8590c", ("#0b4f8a", "#3a7fc0", "#7fb0dc", "#b9d5ee", "#dcebf7")
SIDE = 512  # pixels of a thumbnail
INVERTED, FORWARD = (PRESETS[name].text for name in ("inverted", "forward"))
SAYS = {
    "image_to_video": ("Image to video", "from the end to the image", {"schedule": INVERTED}),
    "image_to_video_f1": ("Image to video, F1", "in temporal order", {"schedule": FORWARD}),
    "image_to_video_small_card": ("Image to video", "GGUF, 6 to 8 GB", {"schedule": INVERTED}),
    "text_to_video": ("Text to video", "no start image", {"schedule": INVERTED, "start": False, "no_start": "zero"}),
    "start_and_end_frame": ("Start and end frame", "from one image to another", {"schedule": INVERTED, "end": True}),
    "key_frames": ("Key frames", "an image in the middle", {"schedule": INVERTED, "endpoint": 36}),
    "single_frame": ("A single frame", "the scene, changed", {"schedule": "f1k1_x_g1_f1k1f2k2f16k4_td", "frames": 2}),
    "extend_forwards": ("Extend forwards", "go on from a video", {"schedule": FORWARD, "extend": "forwards"}),
    "extend_backwards": ("Extend backwards", "lead up to a video", {"schedule": INVERTED, "extend": "backwards"}),
    **{
        f"helios_{task}_{variant}": (f"Helios {variant.capitalize()}", line, {"helios": True, **values})
        for task, line, values in (
            ("text_to_video", "text to video", {"start": False, "no_start": "zero"}),
            ("image_to_video", "image to video", {}),
            ("extend", "go on from a video", {"extend": "forwards"}),
        )
        for variant in ("base", "distilled")
    },
    "helios_repair_distilled": ("Helios Distilled", "long, with drift repair", {"helios": True, "frames": 72}),
}


def icon(side: int) -> Image.Image:
    """Frames of a video: the nearer to the one that is generated, the larger."""
    picture = Image.new("RGB", (side, side), PAPER)
    draw, at = ImageDraw.Draw(picture), 0.08 * side
    for size, colour in zip((0.1, 0.16, 0.26, 0.4), (*reversed(BLUES[:3]), ORANGE), strict=True):
        wide, high = size * side * 0.62, 1.9 * size * side * 0.62
        box = (at, side / 2 - high / 2, at + wide, side / 2 + high / 2)
        draw.rounded_rectangle(box, radius=0.03 * side, fill=colour)
        at += wide + 0.05 * side
    x, y, half = at - 0.05 * side - 0.124 * side, side / 2, 0.075 * side
    draw.polygon([(x - half * 0.8, y - half), (x - half * 0.8, y + half), (x + half, y)], fill=PAPER)
    return picture


def banner() -> Image.Image:
    """The icon with the pack's name, 21 to 9."""
    picture = Image.new("RGB", (1260, 540), PAPER)
    picture.paste(icon(420), (40, 60))
    draw = ImageDraw.Draw(picture)
    draw.text((480, 165), "FramePack Nodes", INK, font(82))
    draw.text((484, 285), "Long videos, section by section,", INK, font(40))
    draw.text((484, 340), "from a history packed by importance.", INK, font(40))
    return picture


def of_plan(title: str, line: str, values: dict) -> Image.Image:
    """A thumbnail with the plan of a workflow."""
    picture = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, SIDE, 12), fill=ORANGE)
    draw.text((28, 66), title, INK, font(46))
    draw.text((28, 128), line, BLUES[0], font(30))
    drawn = _plan(**values)
    drawn = drawn.crop((0, 102, drawn.width, drawn.height))
    drawn = drawn.resize((SIDE - 24, round(drawn.height * (SIDE - 24) / drawn.width)), Image.Resampling.LANCZOS)
    picture.paste(drawn, (12, 186 + max(0, (SIDE - 198 - drawn.height) // 2)))
    return picture


def _plan(
    schedule: str = HELIOS,
    frames: int = 37,
    endpoint: int | None = None,
    extend: str | None = None,
    helios: bool = False,
    **values,
) -> Image.Image:
    if helios:
        frames, values = frames // 9 * 9, values | {"geometry": HELIOS_14B.geometry}
    if endpoint is not None:
        frames, values = 73, values | {"endpoints": (Endpoint(frame=endpoint, slot="middle"),)}
    if extend is not None:
        values |= {
            "start": False,
            "no_start": "zero",
            "extend": Extension(num_lat_frames=9 if helios else 10, direction=extend),
        }
    given = {"start": True} | values
    return draw_plan(make_plan(parse(schedule), num_lat_frames=frames, height=640, width=640, **given)).convert("RGB")


def frames_of(video: Path) -> list[Image.Image]:
    """A video's frames."""
    with av.open(str(video)) as file:
        return [frame.to_image() for frame in file.decode(video=0)]


def of_video(frames: list[Image.Image]) -> Image.Image:
    """A thumbnail of four frames of a video, in reading order."""
    picture = Image.new("RGB", (SIDE, SIDE), PAPER)
    for i in range(4):
        frame = frames[round(i * (len(frames) - 1) / 3)].resize(
            (SIDE // 2 - 4, SIDE // 2 - 4), Image.Resampling.BICUBIC
        )
        picture.paste(frame, ((i % 2) * (SIDE // 2 + 4), (i // 2) * (SIDE // 2 + 4)))
    return picture


def moving(frames: list[Image.Image], path: Path) -> None:
    """A video as an animated picture of about 10 frames per second."""
    shown = [frame.resize((256, 256), Image.Resampling.BICUBIC) for frame in frames[::3]]
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=100, loop=0, quality=70, method=6)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="draw what comes from videos too")
    args = parser.parse_args()
    icon(400).save(WEB / "icon.png", optimize=True)
    banner().save(WEB / "banner.png", optimize=True)
    for name, says in SAYS.items():
        of_plan(*says).save(WORKFLOWS / f"released_{name}.jpg", quality=88)
    if args.videos:
        for name in ("image_to_video_small", "loop_small"):
            frames = frames_of(args.videos / f"{name}_00001_.mp4")
            of_video(frames).save(WORKFLOWS / f"{name}.jpg", quality=88)
        moving(frames_of(args.videos / "image_to_video_small_00001_.mp4"), DOCS / "first_video.webp")


if __name__ == "__main__":
    main()
