"""Write what the page shows of nodes in English and in other languages: names, descriptions and tooltips.

    python -m tools.locales

English is what the host tells of the nodes. `tools/locales/LANG.json` has each English text with its translation.
Inputs keep their ids as labels in every language, because messages and the documentation name them by these.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .host import CACHE, PACK_NAME, REPO, running

log = logging.getLogger(__name__)
WORDS, FOLDER = REPO / "tools" / "locales", REPO / "locales"
LANGUAGES = ("zh", "ja", "fr", "de", "es")

Defs = dict[str, dict[str, Any]]


def english(info: Mapping[str, Any]) -> Defs:
    """The texts of the nodes that a person places, as the page keeps them."""
    return {kind: _node(node) for kind, node in sorted(info.items()) if _is_placed(node)}


def _is_placed(node: Mapping[str, Any]) -> bool:
    return node["python_module"].endswith(PACK_NAME) and not node["deprecated"] and not node.get("dev_only")


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    given = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    outputs = enumerate(node.get("output_tooltips") or [])
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"tooltip": spec[1]["tooltip"]} for name, spec in given.items()},
        "outputs": {str(i): {"tooltip": tooltip} for i, tooltip in outputs if tooltip},
    }


def texts(defs: Any) -> Iterator[str]:
    """Every text of definitions."""
    if isinstance(defs, str):
        yield defs
        return
    for part in defs.values():
        yield from texts(part)


def translated(defs: Any, words: Mapping[str, str]) -> Any:
    """Definitions in another language. Raises KeyError for a text without a translation."""
    if isinstance(defs, str):
        return words[defs]
    return {key: translated(part, words) for key, part in defs.items()}


def read(language: str) -> dict[str, str]:
    """A language's translations by the English text."""
    return json.loads((WORDS / f"{language}.json").read_text("utf-8"))


def write(defs: Defs) -> None:
    """Write all languages. Ends with the texts that lack a translation."""
    words = {language: read(language) for language in LANGUAGES}
    if lacking := {(lang, text) for lang, known in words.items() for text in texts(defs) if text not in known}:
        sys.exit("\n".join(f"{language} lacks: {text}" for language, text in sorted(lacking)))
    for language, part in {"en": defs, **{lang: translated(defs, known) for lang, known in words.items()}}.items():
        path = FOLDER / language / "nodeDefs.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(part, indent=1, ensure_ascii=False) + "\n", "utf-8")
        log.info("%s: %d nodes", language, len(part))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with running(CACHE / "demo") as host:
        write(english(host.get("/object_info")))
