"""Which frames stand for a section before it is sampled: those of an earlier section with the same prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .section import Section

SAME_PROMPT = "same prompt"


def with_references(sections: Iterable[Section]) -> Iterator[Section]:
    """Sections in order of generation, each compared by the nearest earlier one with its prompt, where it is so asked.

    Without such a section the nearest section stands for it.
    """
    done: list[Section] = []
    for section in sections:
        choice = section.choice
        if choice and choice.estimate == SAME_PROMPT:
            alike = [range(*each.makes[0]) for each in done if each.prompt == section.prompt]
            there = [made for made in alike if made.start in choice.candidates and made[-1] in choice.candidates]
            if there:
                nearest = min(there, key=lambda made: min(abs(f - choice.nearest) for f in (made[0], made[-1])))
                section = replace(section, choice=replace(choice, reference=nearest))
        done.append(section)
        yield section
