"""Writes the table of presets in docs/providers.md from profiles/providers: `python -m tools.preset_docs`.

With `--check` it writes nothing, and fails where the table is out of date.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lumen.config.presets import Preset, find, names
from tools.generated import between, put

FILE = Path(__file__).resolve().parents[1] / "docs" / "providers.md"
_BEGIN, _END = "<!-- presets: begin; made by tools/preset_docs.py -->", "<!-- presets: end -->"
# Endpoints besides chat, by the capability that says so.
_BESIDES = {
    "rerank": "rerank",
    "moderations": "moderations",
    "image_generation": "images",
    "transcription": "transcription",
    "speech": "speech",
    "tokenize": "tokens",
}


def table(presets: Iterable[Preset]) -> str:
    """One row a preset, as Markdown."""
    lines = ["| preset | vendor | dialect | key | prefill | besides chat |", "| --- | --- | --- | --- | --- | --- |"]
    for one in presets:
        title = f"[{one.title}]({one.docs})" if one.docs else one.title
        key = f"`{one.key}`" if one.key else "none"
        besides = ", ".join(word for field, word in _BESIDES.items() if getattr(one.capabilities, field))
        lines.append(f"| `{one.name}` | {title} | {one.dialect} | {key} | {_prefill(one)} | {besides} |")
    return "\n".join(lines)


def _prefill(preset: Preset) -> str:
    found = {preset.capabilities.prefill, *(model.capabilities.prefill for model in preset.models.values())}
    kinds = sorted(kind for kind in found if kind not in (None, "none"))
    some = " (some models)" if kinds and preset.capabilities.prefill in (None, "none") else ""
    return ", ".join(kinds) + some if kinds else "-"


def written(document: str) -> str:
    """The document with the table of today in it.

    Raises:
        ValueError: it has no place for one.
    """
    return between(document, _BEGIN, _END, table(map(find, names())))


if __name__ == "__main__":
    put(FILE, written(FILE.read_text("utf-8")), "tools.preset_docs")
