"""Which columns of a table fit into the room there is, and how wide each is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`keep`: where there is no room, the least goes first. `right`: figures. `least`, `most`: characters of a text."""

    name: str
    keep: int = 5
    right: bool = False
    least: int = 8
    most: int = 60


def fit(columns: Sequence[Column], natural: Sequence[int], room: int) -> list[tuple[int, int]]:
    """The columns that stay, in their order, as (index, width).

    Args:
        natural: the width at which nothing of a column is cut.
    """
    wanted = [min(width, column.most) for column, width in zip(columns, natural, strict=True)]
    least = [min(width, max(column.least, 1)) for column, width in zip(columns, wanted, strict=True)]
    kept = sorted(range(len(columns)), key=lambda at: (-columns[at].keep, at))
    while len(kept) > 1 and sum(least[at] + GAP for at in kept) - GAP > room:
        kept.pop()
    spare = room - sum(least[at] + GAP for at in kept) + GAP
    widths = {at: least[at] for at in kept}
    for _, group in groupby(kept, key=lambda at: columns[at].keep):
        wanting = [at for at in group if wanted[at] > widths[at]]
        while wanting and spare > 0:
            # The narrowest first, so that equals are cut alike.
            at = min(wanting, key=lambda at: (widths[at], at))
            widths[at] += 1
            spare -= 1
            wanting = [at for at in wanting if wanted[at] > widths[at]]
    return [(at, min(widths[at], room)) for at in sorted(kept)]


def cut(text: str, width: int, *, right: bool = False) -> str:
    """`text` at exactly this width; what is cut off is marked."""
    if len(text) > width:
        return text[: width - 1] + "…" if width > 1 else text[:width]
    return text.rjust(width) if right else text.ljust(width)
