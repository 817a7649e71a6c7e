"""The built-in demonstration model: where its files are and what they must hash to.

Made by tools/tiny_model; MODEL_CARD.md says what it can and cannot do.
"""

from __future__ import annotations

from pathlib import Path

NAME = "lumen-tiny"
MODEL = Path(__file__).parent / "lumen-tiny.gguf"
DRAFT = Path(__file__).parent / "lumen-tiny-draft.gguf"
"""A smaller model of the same vocabulary, for speculative decoding."""


def digests() -> dict[str, str]:
    """SHA-256 in hexadecimal by file name, as released. Raises OSError if the list is not installed."""
    lines = (Path(__file__).parent / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
