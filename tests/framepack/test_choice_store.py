"""What is sampled again where history is chosen: the store's key is the choice, or all that it is chosen from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from framepack.errors import PlanError
from framepack.packing.codebook import Codebook
from framepack.packing.treatment import Treatment
from framepack.pipeline import Job, Settings, generate
from framepack.planning.plan import Plan
from framepack.planning.prompt_timeline import Stretch, with_prompts
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.store.digest import digest
from framepack.store.section_store import SectionStore

LIKE = torch.empty(1, 16, 1, 4, 4)


@dataclass
class Scenes:
    """A sampler whose prompt alone decides what a section shows, so that an edit changes that section only."""

    sampled: list[int] = field(default_factory=list)
    solver: None = None

    def key(self, job: Job) -> str:
        late = job.late.chooser.to_key() if job.late else None
        parts = {"prompt": job.section.prompt, "history": job.history, "at": job.section.positions, "late": late}
        return digest(parts | {"noise": job.noise})

    def about(self, job: Job) -> dict[str, str]:
        return {}

    def sample(self, job: Job, step: object) -> Tensor:
        self.sampled.append(job.index)
        scene, _, take = str(job.section.prompt).partition(" ")
        generator = torch.Generator().manual_seed(sum(map(ord, scene)))
        still = torch.randn(1, 16, 1, 4, 4, generator=generator) + 0.05 * len(take)
        return still.expand_as(job.noise) + 0.01 * torch.arange(job.noise.shape[2]).view(1, 1, -1, 1, 1)

    def normalised(self, latents: Tensor) -> Tensor:
        return latents


def plan_of(prompts: list[str], estimate: str) -> Plan:
    schedule, num = parse("td_f8k4f2k2f1k1_g9"), 1 + 9 * len(prompts)
    plan = make_plan(schedule, num_lat_frames=num, importance="similarity", estimate=estimate)
    seconds = 9 * 4 / 30
    lines = (Stretch(start=i * seconds, stop=(i + 1) * seconds, prompt=p) for i, p in enumerate(prompts))
    return with_prompts(plan, tuple(lines), 30)


def rerun(prompts: list[str], store: SectionStore, estimate: str) -> list[int]:
    sampler = Scenes()
    start = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    generate(plan_of(prompts, estimate), {0: start}, sampler, Settings(steps=5), like=LIKE, store=store)
    return sampler.sampled


BEFORE = ["beach", "city", "forest", "beach", "beach"]
UNSEEN = ["beach", "city again", "forest", "beach", "beach"]
SEEN = ["beach too", "city", "forest", "beach", "beach"]


@pytest.mark.parametrize("estimate", ["nearest section", "same prompt"])
def test_with_a_known_estimate_an_edit_reruns_the_sections_whose_choice_it_changes(tmp_path: Path, estimate: str):
    store = SectionStore(tmp_path, 10**9)
    assert rerun(BEFORE, store, estimate) == [0, 1, 2, 3, 4]
    # The last beach chooses the beaches before it, and not the city; the forest has the city next to it.
    again = rerun(UNSEEN, store, estimate)
    assert again[:2] == [1, 2]
    assert 4 not in again
    assert 4 in rerun(SEEN, store, estimate)
    assert rerun(BEFORE, store, estimate) == []


def test_with_the_first_steps_any_change_of_a_candidate_reruns_the_section(tmp_path: Path):
    store = SectionStore(tmp_path, 10**9)
    assert rerun(BEFORE, store, "first steps") == [0, 1, 2, 3, 4]
    assert rerun(UNSEEN, store, "first steps") == [1, 2, 3, 4]
    assert rerun(BEFORE, store, "first steps") == []


def test_a_plan_with_d_is_generated_with_a_codebook_only():
    plan = make_plan(parse("td_f4k2f1k1_g9+d"), num_lat_frames=10)
    anchors = {0: torch.randn(1, 16, 1, 4, 4)}
    with pytest.raises(PlanError, match=r"\+d"):
        generate(plan, anchors, Scenes(), Settings(steps=2), like=LIKE)
    book = Codebook(centroids=torch.randn(4, 16), latent_format="built-in")
    made = generate(plan, anchors, Scenes(), Settings(steps=2, treatment=Treatment(codebook=book)), like=LIKE)
    assert made.shape[2] == 10
