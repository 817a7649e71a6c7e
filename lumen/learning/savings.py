"""What a route saved against asking its strong target always, from what its tries came to. Pure.

What another target answered is reckoned at the strong target's price for the tokens that were counted, which its own
answer might have had more or fewer of; tokens that came from a cache count as if the strong one had had them there too.
What another target was paid and did not answer is a loss, and so is everything that was asked in the dark.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from lumen.core.meter import Seen, Tokens, bill
from lumen.core.money import Price
from lumen.ledger.rows import UNPRICED

if TYPE_CHECKING:
    from lumen.ledger.report import Tried

# What the ledger calls requests that no client waited for.
DARK = frozenset({"shadow", "canary", "judge"})
# Outcomes of a try that gave its client what there was to give.
_SERVED = frozenset({"ok", "cancelled"})


class Saved(Struct, frozen=True):
    """Amounts in pico-dollars. `requests`: of clients; `away`: those that another target than the strong one answered.

    `paid`: for all tries, those in the dark included, which cost `dark`. `instead`: what the strong target would have
    taken for what others answered; `others`: what those took, failed tries included. `unpriced`: answers of others
    whose price is not known, which count for nothing.
    """

    requests: int
    away: int
    paid: int
    dark: int
    instead: int
    others: int
    unpriced: int

    @property
    def saved(self) -> int:
        """What is left of it when everything it took is taken off; below zero: it cost more."""
        return self.instead - self.others - self.dark

    @property
    def always_strong(self) -> int:
        """What asking the strong target always would have come to."""
        return self.paid + self.saved


def saved(tries: Iterable[Tried], strong: str, price: Price) -> Saved:
    """What became of the tries of one route; `price`: of its strong target now."""
    requests: set[str] = set()
    away: set[str] = set()
    paid = dark = instead = others = unpriced = 0
    for one in tries:
        paid += one.cost
        if one.operation in DARK:
            dark += one.cost
            continue
        requests.add(one.request)
        if one.target == strong:
            continue
        others += one.cost
        if one.outcome in _SERVED:
            away.add(one.request)
            if one.flags & UNPRICED:
                unpriced += 1
                continue
            tokens = Tokens(one.input or 0, one.output or 0, one.cached, one.cache_write)
            instead += bill(price, tokens, Seen()).cost
    return Saved(len(requests), len(away), paid, dark, instead, others, unpriced)
