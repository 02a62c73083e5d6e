"""The drift study: long videos by every order and method, measured; results stay on disk, so that it resumes.

    python -m framepack.shapes.study [--clips 16] [--jobs 2] [--report docs/drift-study.md]

Scenes are of seeds that training never saw, the same for every case, and so is the noise of a clip where sections are
alike, so that cases are paired. Fewer than 16 clips make the reduced form: shorter videos, fewer steps and cases.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FramePackError
from ..metrics.drift import measure
from ..metrics.frames import Clip
from ..metrics.measures import MEASURES
from ..packing.codebook import Codebook, explained_variance, learn, some_pixels
from ..store.digest import digest
from . import builtin
from .encode import encode_scene, scene_of
from .generate import Builtin, generate
from .shape_measures import MEASURES as SHAPES
from .study_cases import LED, RECOMMENDED, Case, cases
from .world import caption

log = logging.getLogger(__name__)
FIRST_SEED = 50_000  # of the scenes; training and evaluation use others
FPS, KEPT = 30, 3  # frames per second, and every how many are measured
LEARNED_FROM = 40  # clips of a codebook, of other seeds
CODEBOOK = "codebook.safetensors"  # beside the files of a model that was trained with it
FULL = 16  # clips from which on the study is whole
NAMES = ("clarity", "sharpness", "contrast", "colour", "saturation", "dynamic", "smoothness", "identity", "shape")
POINTS = 60  # of a curve in a plot


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """How it is run. `discrete` is a folder with the files of a model that was trained with a codebook."""

    out: Path
    clips: int = FULL
    steps: int = 8
    num_lat_frames: int = 226
    assets: Path = builtin.ASSETS
    discrete: Path | None = None
    device: str = "cpu"

    @property
    def reduced(self) -> bool:
        """Is it the short form?"""
        return self.clips < FULL

    @property
    def seconds(self) -> float:
        """The length of a video."""
        return (4 * self.num_lat_frames - 3) / FPS

    def folder(self, weights: str) -> Path:
        """Where the results of these weights and settings lie."""
        return self.out / f"{weights[:12]}-{self.clips}-{self.steps}-{self.num_lat_frames}"


def digest_of(folder: Path) -> str:
    """What names the files of a model."""
    from safetensors.torch import load_file

    files = [folder / path.relative_to(builtin.ASSETS) for path in (builtin.DIT, builtin.TEXT, builtin.VAE)]
    return digest({path.name: load_file(path) for path in files})


def books(model: Builtin, folder: Path, sizes: list[int]) -> dict[int, Codebook]:
    """Codebooks of the world's latents by size, learned once."""
    missing = [num for num in sizes if not (folder / f"codebook-{num}.safetensors").exists()]
    if missing:
        first = FIRST_SEED - LEARNED_FROM
        latents = (encode_scene(model.vae, scene_of(seed), 28)[None] for seed in range(first, FIRST_SEED))
        pixels = some_pixels(latents, count=LEARNED_FROM)
        for num in missing:
            centroids = learn(pixels, num)
            told = {"pixels": len(pixels), "explained_variance": round(explained_variance(pixels, centroids), 4)}
            book = Codebook(centroids=centroids, latent_format="built-in", provenance=told)
            book.save(folder / f"codebook-{num}.safetensors")
    return {num: Codebook.load(folder / f"codebook-{num}.safetensors") for num in sizes}


def run_case(study: Study, case: Case, folder: Path) -> None:
    """Make and measure a case's videos, a clip at a time into one file; what is there already is kept."""
    torch.set_num_threads(1)
    place = folder / f"{case.name.replace(' ', '-')}.json"
    done: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {"clips": {}}
    todo = [i for i in range(study.clips) if str(i) not in done["clips"]]
    if not todo:
        return
    trained = bool(case.discrete and study.discrete)
    model = Builtin.load(study.discrete if trained and study.discrete else study.assets, study.device)
    book = books(model, folder, [case.centroids] if case.centroids else [])
    if trained and study.discrete and (own := study.discrete / CODEBOOK).exists():
        book = {case.centroids: Codebook.load(own)}
    done |= {"case": asdict(case), "trained": trained, "explained": _explained(book)}
    if "section_seconds" not in done:
        done["section_seconds"] = section_seconds(model, case, book, study.steps)
    for first in range(0, len(todo), 4):
        some = todo[first : first + 4]
        for index, clip in zip(some, videos(model, study, case, book, some), strict=True):
            done["clips"][str(index)] = measured(model.pixels(clip))
        place.with_suffix(".part").write_text(json.dumps(done), "utf-8")
        place.with_suffix(".part").replace(place)
        log.info("%s: %d of %d clips", case.name, len(done["clips"]), study.clips)


def _explained(book: dict[int, Codebook]) -> float | None:
    return next((held.provenance.get("explained_variance") for held in book.values()), None)  # type: ignore[return-value]


def videos(model: Builtin, study: Study, case: Case, book: dict[int, Codebook], some: list[int]) -> Tensor:
    """The latents of some of the study's clips, ``b c t h w``."""
    scenes = [scene_of(FIRST_SEED + index) for index in some]
    starts = torch.stack([encode_scene(model.vae, scene, 1) for scene in scenes])
    how = {"steps": study.steps, "seed": some[0], "guidance": case.guidance, "treatment": case.treatment(book)}
    plan = case.plan(study.num_lat_frames)
    return generate(model, plan, [caption(scene) for scene in scenes], start=starts, **how)


def section_seconds(model: Builtin, case: Case, book: dict[int, Codebook], steps: int, sections: int = 4) -> float:
    """Processor seconds for each nine latent frames of one clip, the better of two runs."""
    scene, num = scene_of(FIRST_SEED), 9 * sections
    start, plan = encode_scene(model.vae, scene, 1)[None], case.plan(num + 1)
    how = {"steps": steps, "seed": 0, "guidance": case.guidance, "treatment": case.treatment(book)}
    took = []
    for _ in range(2):
        began = time.process_time()
        generate(model, plan, [caption(scene)], start=start, **how)
        took.append((time.process_time() - began) / sections)
    return min(took)


def measured(pixels: Tensor) -> dict[str, Any]:
    """Every measure of a video ``t 3 h w``: mean, start, end, contrast, and a curve of few points."""
    frames = (pixels[::KEPT].permute(0, 2, 3, 1) * 255).round().byte().numpy()
    clip = Clip(name="clip", fps=FPS / KEPT, height=frames.shape[1], width=frames.shape[2], frames=iter(frames))
    report = measure(clip, NAMES, MEASURES | SHAPES)
    return {
        curve.measure.name: {
            "mean": _plain(curve.mean),
            "start": _plain(curve.start),
            "end": _plain(curve.end),
            "contrast": _plain(curve.contrast),
            "curve": list(_thinned(curve.values)),
        }
        for curve in report.curves
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def _thinned(values: np.ndarray) -> Iterator[float | None]:
    for part in np.array_split(values, min(POINTS, len(values))):
        known = part[~np.isnan(part)]
        yield _plain(known.mean()) if len(known) else None


def run(study: Study, jobs: int, only: list[str]) -> Path:
    """Run all cases that are not done yet; the folder of the results. Raises FramePackError for an unknown case."""
    chosen = [case for case in cases(study.reduced) if not only or case.name in only]
    if unknown := set(only) - {case.name for case in chosen}:
        raise FramePackError(f"There is no case {min(unknown)!r}. Choose from: {', '.join(c.name for c in chosen)}.")
    folder = study.folder(digest_of(study.assets))
    folder.mkdir(parents=True, exist_ok=True)
    model = Builtin.load(study.assets, study.device)
    books(model, folder, sorted({case.centroids for case in chosen} - {0}))
    about = {"clips": study.clips, "steps": study.steps, "seconds": round(study.seconds, 2), "guidance": asdict(LED)}
    (folder / "about.json").write_text(json.dumps(about), "utf-8")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for future in [pool.submit(run_case, study, case, folder) for case in chosen]:
            future.result()
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=FULL)
    parser.add_argument("--steps", type=int, help="of a section (8; reduced 4)")
    parser.add_argument("--lat-frames", type=int, help="of a video (226, 30 s; reduced 91, 12 s)")
    parser.add_argument("--jobs", type=int, default=2, help="cases at once")
    parser.add_argument("--out", type=Path, default=Path(".cache/drift-study"), help="where results stay")
    Builtin.add_options(parser)
    parser.add_argument("--discrete", type=Path, help="folder of a model that was trained with a codebook")
    parser.add_argument("--cases", nargs="*", default=[], help="only these")
    parser.add_argument("--report", type=Path, help="write the report, such as docs/drift-study.md")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    reduced = args.clips < FULL
    study = Study(
        out=args.out,
        clips=args.clips,
        steps=args.steps or (4 if reduced else 8),
        num_lat_frames=args.lat_frames or (91 if reduced else 226),
        assets=args.assets,
        discrete=args.discrete,
        device=args.device,
    )
    folder = run(study, args.jobs, args.cases)
    if args.report:
        from .study_report import write

        write(folder, args.report)
        log.info("%s", args.report)


if __name__ == "__main__":
    main()


__all__ = ["RECOMMENDED", "Study", "run", "section_seconds"]
