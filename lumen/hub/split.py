"""Models that are split into numbered files."""

from __future__ import annotations

from pathlib import Path

from lumen.hub.errors import MissingError


def split_parts(first: Path) -> list[Path]:
    """A file, or all parts of the model that it is a part of.

    Raises:
        MissingError: a part is not there.
    """
    stem, _, tail = first.stem.rpartition("-of-")
    if not (stem and tail.isdigit() and len(tail) == 5 and stem[-5:].isdigit() and stem[-6:-5] == "-"):
        return [first]
    parts = [first.with_name(f"{stem[:-5]}{number:05d}-of-{tail}.gguf") for number in range(1, int(tail) + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise MissingError(f"the model is split and {missing[0]} is not beside {first.name}")
    return parts
