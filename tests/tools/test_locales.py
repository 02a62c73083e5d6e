"""Names and tooltips in every language: none is missing, none is left in English."""

from __future__ import annotations

import json

import pytest

from tools.locales import FOLDER, LANGUAGES, read, texts, translated

ENGLISH = json.loads((FOLDER / "en" / "nodeDefs.json").read_text("utf-8"))
# The same word in some languages.
ALIKE = {f"FramePack {word}" for word in ("Drift", "Farm", "Parallel", "Sigmas", "Video")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_text_of_english_in_its_place(language: str):
    words = read(language)
    assert json.loads((FOLDER / language / "nodeDefs.json").read_text("utf-8")) == translated(ENGLISH, words)
    assert {text for text in texts(ENGLISH) if words[text] == text} <= ALIKE
    assert all(name["display_name"].startswith("FramePack") for name in translated(ENGLISH, words).values())
