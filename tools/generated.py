"""What scripts write into documents, between two marks."""

from __future__ import annotations

import sys
from pathlib import Path


def between(document: str, begin: str, end: str, made: str) -> str:
    """The document with `made` between the marks `begin` and `end`.

    Raises:
        ValueError: it has no place for it.
    """
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"there is no place for what belongs behind {begin}")
    return f"{before}{begin}\n{made}\n{end}{after}"


def put(file: Path, text: str, script: str) -> None:
    """Write `text` to `file`; with `--check` on the command line, end with an error where something else is there."""
    if "--check" not in sys.argv[1:]:
        file.write_text(text, "utf-8")
    elif file.read_text("utf-8") != text:
        sys.exit(f"{file.name} is out of date: python -m {script}")
