"""Takes of sections and locks: the text, the engine, and the store under them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framepack.errors import LostTakeError, PlanError
from framepack.pipeline import Job, Settings, sample_sections
from framepack.planning.plan_slice import PlanSlice
from framepack.planning.takes import Take, TakeError, from_data, read_takes, write_takes
from framepack.planning.video import make_plan
from framepack.schedule.grammar import parse
from framepack.store.digest import digest
from framepack.store.section_store import SectionStore

LIKE = torch.zeros(1, 4, 1, 2, 2)
PLAN = make_plan(parse("td_f16k4f2k2f1k1_g9"), num_lat_frames=28, height=16, width=16, start=False)
LOCK = "0123456789abcdef"


def test_lines_are_takes_of_sections():
    text = f"# one of each\n2: 17, 5\n3: locked {LOCK}\n\n 4 : 8 locked {LOCK}"
    expected = {1: Take(seed=17, others=(5,)), 2: Take(lock=LOCK), 3: Take(seed=8, lock=LOCK)}
    assert read_takes(text, 4) == expected
    assert read_takes(write_takes(expected)) == expected
    assert read_takes("") == {}


@pytest.mark.parametrize(
    "text",
    ["2", "2: ", "x: 3", "2: 3 4", "2: -1", "2: 1.5", "0: 1", "5: 1", "2: 1\n2: 3", "2: locked", "2: locked ../x"]
    + [f"2: {2**64}", "2: " + ", ".join("1" * 33), 7, None, "x" * 100_001],
    ids=lambda text: repr(text)[:20],
)
def test_other_lines_are_refused(text):
    with pytest.raises(TakeError):
        read_takes(text, 4)


@given(st.text(max_size=60))
def test_any_text_reads_or_is_refused(text: str):
    with suppress(TakeError):
        assert read_takes(write_takes(read_takes(text))) == read_takes(text)


def test_a_slice_carries_the_takes_of_its_own_sections():
    takes = {0: Take(seed=3, others=(4,)), 2: Take(lock=LOCK)}
    part = PlanSlice.of(PLAN, 2, 3, takes=takes)
    assert part.takes == {2: Take(lock=LOCK)}
    assert PlanSlice.from_json(part.to_json()) == part
    assert PlanSlice.of(PLAN, 1, 2, takes=takes).to_json() == PlanSlice.of(PLAN, 1, 2).to_json()
    assert from_data([[0, 3, None]]) == {0: Take(seed=3)}
    assert from_data([[1, 0, None], [2, 2**64 - 1, LOCK]]) == {1: Take(seed=0), 2: Take(seed=2**64 - 1, lock=LOCK)}


@pytest.mark.parametrize(
    "data", [{}, [[0]], [[-1, 3, None]], [[0, -3, None]], [[0, None, "x"]], [[0, 2**64, None]], [7]]
)
def test_takes_of_another_shape_are_refused(data):
    with pytest.raises((TakeError, PlanError)):
        from_data(data)


class Summing:
    """A sampler whose sections are their noise and the mean of their history."""

    solver = None

    def __init__(self) -> None:
        self.sampled: list[int] = []
        self.seams: list[int] = []
        self.ids: dict[int, str | None] = {}

    def key(self, job: Job) -> str:
        return digest({"noise": job.noise, "history": job.history})

    def about(self, job: Job) -> dict[str, str]:
        return {"context": digest({"history": job.history}), "video": "one"}

    def sample(self, job: Job, step: object) -> torch.Tensor:
        self.sampled.append(job.index)
        return job.noise + sum(float(group.latents.mean()) for group in job.history)

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def begin(self, job: Job) -> None:
        pass

    def loaded(self, job: Job) -> None:
        pass

    def locked(self, job: Job, seam: bool) -> None:
        self.seams += [job.index] * seam

    def done(self, job: Job, key: str | None) -> None:
        self.ids[job.index] = key and key[:16]


def made(store: SectionStore | None, **takes: Take) -> tuple[Summing, list[torch.Tensor]]:
    """What becomes of the plan: the sampler, and every section's latents. `takes` are by s and the section's index."""
    sampler = Summing()
    settings = Settings(seed=1, steps=2, takes={int(name[1:]): take for name, take in takes.items()})
    how = {"like": LIKE, "store": store, "progress": sampler}
    return sampler, [latents for _, latents in sample_sections(PLAN.sections, {}, sampler, settings, **how)]


def test_another_take_changes_its_section_and_those_after_it_and_both_are_kept(tmp_path: Path):
    store = SectionStore(tmp_path, 10**9)
    _, first = made(store)
    other, second = made(store, s1=Take(seed=17))
    assert other.sampled == [1, 2, 3][: len(first) - 1]
    assert torch.equal(first[0], second[0])
    assert not any(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))
    for takes, expected in (({}, first), ({"s1": Take(seed=17)}, second)):
        again, third = made(store, **takes)
        assert again.sampled == []
        assert all(map(torch.equal, third, expected))


def test_a_locked_section_stays_whatever_changes_and_says_where_a_seam_is(tmp_path: Path):
    store = SectionStore(tmp_path, 10**9)
    ids, first = made(store)[0].ids, made(store)[1]
    quiet, _ = made(store, s1=Take(lock=ids[1]))
    assert quiet.seams == []
    changed, second = made(store, s0=Take(seed=5), s1=Take(lock=ids[1]))
    assert torch.equal(second[1], first[1])
    assert not torch.equal(second[0], first[0])
    assert changed.seams == [1]
    assert 1 not in changed.sampled


def test_a_locked_take_outlives_eviction_and_a_restart(tmp_path: Path):
    store = SectionStore(tmp_path, 10**9)
    sampler, first = made(store)
    assert store.holds(sampler.ids[1])
    small = SectionStore(tmp_path, 1)
    assert small.put("f" * 64, LIKE)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    again, second = made(small, s1=Take(lock=sampler.ids[1]))
    assert torch.equal(second[1], first[1])
    assert 1 not in again.sampled


def test_a_locked_take_whose_entry_is_gone_is_still_found_by_its_key(tmp_path: Path):
    store = SectionStore(tmp_path, 10**9)
    sampler, first = made(store)
    assert store.holds(sampler.ids[0])
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert 0 not in made(store)[0].sampled


@pytest.mark.parametrize("loss", ["cleared", "broken", "off", "other"])
def test_a_lost_take_is_reported_and_never_replaced(tmp_path: Path, loss: str):
    store = SectionStore(tmp_path, 10**9)
    ids = made(store)[0].ids
    assert store.holds(ids[1])
    for path in tmp_path.rglob(f"{ids[1]}*"):
        path.unlink() if loss == "cleared" else path.write_bytes(path.read_bytes()[: 200 if loss == "broken" else None])
    lock = LOCK if loss == "other" else ids[1]
    with pytest.raises(LostTakeError, match=rf"Section 2 is locked to take {lock}, which .* store.*Unlock"):
        made(None if loss == "off" else store, s1=Take(lock=lock))


def test_a_take_of_another_size_does_not_fit(tmp_path: Path):
    store = SectionStore(tmp_path, 10**9)
    store.put(LOCK + "0" * 48, torch.zeros(1, 4, 2, 2, 2))
    with pytest.raises(LostTakeError, match="another size"):
        made(store, s1=Take(lock=LOCK))


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_take_draws_its_own_noise_and_leaves_that_of_others_alone(in_turn: bool):
    def noise(takes: dict[int, Take]) -> list[torch.Tensor]:
        drawing = Settings(seed=1, takes=takes).drawing(None, LIKE, in_turn)
        return [drawing.section(index, 9)[0] for index in range(3)]

    plain, taken = noise({}), noise({1: Take(seed=17), 2: Take(lock=LOCK)})
    assert [torch.equal(a, b) for a, b in zip(plain, taken, strict=True)] == [True, False, True]
    assert torch.equal(taken[1], Settings(seed=17).drawing(None, LIKE, False).section(1, 9)[0])
