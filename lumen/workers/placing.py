"""Which cards a replica may be put on, the better ones first. PURE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Sizes = Mapping[str, int]


def groups(
    cards: Sequence[str], assigned: Sequence[str], replicas: int, spreads: Callable[[int], bool] = lambda count: True
) -> list[tuple[str, ...]]:
    """The groups of cards that one replica may have.

    Cards that were assigned are divided among the replicas, in order; what is left over goes to the first ones.
    Otherwise any one card will do, then any two neighbours, four, and all: of these numbers those over which it
    `spreads`, and where it is none of them, the least that is.
    """
    if assigned:
        here = [card for card in assigned if card in cards]
        share, more = divmod(len(here), max(1, replicas))
        if not share:
            return [(card,) for card in here]
        edges = [place * share + min(place, more) for place in range(replicas + 1)]
        return [tuple(here[edges[place] : edges[place + 1]]) for place in range(replicas)]
    doubled = [1 << power for power in range(len(cards).bit_length()) if 1 << power <= len(cards)]
    sizes = [size for size in dict.fromkeys([*doubled, len(cards)]) if size and spreads(size)]
    if not sizes:
        sizes = [size for size in range(1, len(cards) + 1) if spreads(size)][:1]
    return [tuple(cards[place : place + size]) for size in sizes for place in range(0, len(cards) - size + 1, size)]


def ordered(
    places: Sequence[tuple[str, ...]],
    takes: Callable[[tuple[str, ...]], Sizes],
    room: Sizes,
    free: Callable[[str], int],
    *,
    assigned: bool = False,
) -> list[tuple[tuple[str, ...], Sizes]]:
    """Places with what a replica takes there. Those that could never hold it are left out, unless none could.

    Of the rest the fewest cards first (each boundary between cards costs speed), then where most is left free, so that
    replicas spread. Places that were `assigned` are one replica's each, however large: there the emptiest comes first.
    `room`: what each device could give at all, `free`: what it can give now.
    """
    found = [(cards, takes(cards)) for cards in places]
    fitting = [one for one in found if all(size <= room.get(device, 0) for device, size in one[1].items())]
    if not fitting:
        return found[:1]
    if assigned:
        return sorted(fitting, key=lambda one: -min((free(card) for card in one[0]), default=0))
    fewest = min(len(cards) for cards, _ in fitting)
    return sorted(
        (one for one in fitting if len(one[0]) == fewest),
        key=lambda one: -min((free(card) - one[1].get(card, 0) for card in one[0]), default=0),
    )
