"""What a MODEL's weights were trained for, against what a plan and a SAMPLER ask of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import comfy.model_patcher

from ...framepack.errors import FramePackError
from ...framepack.models.backbones import backbone_with
from ...framepack.planning.plan_slice import PlanSlice
from ...framepack.planning.section import Section
from ...framepack.sampling.pyramid import check_sides
from ...framepack.sampling.staged import Pyramid, name_of
from ...framepack.schedule.grammar import parse
from .loading import file_of, order_trained
from .sampling import geometry, solver_of

log = logging.getLogger(__name__)


def check_solver(model: comfy.model_patcher.ModelPatcher, sampler: Any, part: PlanSlice) -> None:
    """Raises FramePackError for a pyramid where the weights know none, LatentSizeError where it cannot halve the size.

    Warns of another solver than the one that the weights were released with.
    """
    solver = solver_of(sampler)
    backbone = backbone_with(model.model.diffusion_model.spec)
    path = file_of(model)
    wanted = backbone.solver_of("/".join(path.parts[-2:]))
    if isinstance(solver, Pyramid):
        check_sides(part.height, part.width, len(solver.steps), part.geometry.spatial)
        if wanted and not wanted.startswith("pyramid"):
            raise FramePackError(
                f"A pyramid is for {backbone.name} Mid and Distilled; got {path.name}. Connect FramePack Solver "
                f"{wanted}, or load other weights."
            )
    given = name_of(solver) or "another"
    if wanted and part.first == 0 and not given.startswith(wanted):
        log.warning("%s was released with the solver %s; got %s. Expect a poor video.", path.name, wanted, given)


def warn_of_schedule(model: comfy.model_patcher.ModelPatcher, part: PlanSlice) -> None:
    """Warn where the plan's sections are not those that the weights were trained on. The pack's own know all."""
    spec = model.model.diffusion_model.spec
    if geometry(model).sections_are_clips and not part.geometry.sections_are_clips and part.first == 0:
        log.warning(
            "The plan is one clip, but each section of %s is a clip. Connect the model to EndpointPlanner too.",
            backbone_with(spec).name,
        )
    if part.first == 0 and (warning := schedule_warning(model, part.sections)):
        log.warning("%s", warning)
    elif backbone_with(spec).schedule is None and spec.image_dim is not None:
        _warn_of_order(model, part.sections)


def warn_of_positions(model: comfy.model_patcher.ModelPatcher, part: PlanSlice) -> None:
    """Warn where positions leave those that a model's own file states; the planner knows the released models'."""
    trained: range | None = model.model.diffusion_model.spec.positions
    highest = max(section.highest for section in part.sections)
    if trained is not None and highest not in trained:
        log.warning(
            "Positions reach %d, but the model was trained on 0 to %d. Choose a shorter gap, or expect a poor video.",
            *(highest, trained[-1]),
        )


def schedule_warning(model: comfy.model_patcher.ModelPatcher, sections: Iterable[Section]) -> str | None:
    """What of a plan's sections the weights were not trained on, where they know one schedule."""
    backbone = backbone_with(model.model.diffusion_model.spec)
    if backbone.schedule is None:
        return None
    trained, seen = parse(backbone.schedule), [section for section in sections if section.context]
    groups = [(group.kernel, group.num_lat_frames) for group in (*trained.far_past, *trained.past)]
    if any([(context.kernel, len(context.frames)) for context in section.context] != groups for section in seen):
        return (
            f"{backbone.name} was trained on the schedule {backbone.schedule} alone. Expect a poor video from another."
        )
    if others := {section.num_lat_frames for section in seen} - {trained.generate}:
        return (
            f"{backbone.name} was trained on sections of {trained.generate} latent frames; got {min(others)}. Expect "
            "lower quality."
        )
    return None


def _warn_of_order(model: comfy.model_patcher.ModelPatcher, sections: Iterable[Section]) -> None:
    """Warn where the plan's order is not the one that the weights were trained for."""
    ahead = any(c.positions[0] > s.positions[-1] for s in sections for c in s.context)
    asked, trained = "inverted" if ahead else "forward", order_trained(model)
    if asked != trained:
        log.warning(
            "The plan is %s, but the model was trained for %s order. Expect drift or a poor video.", asked, trained
        )
