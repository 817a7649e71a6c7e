"""What goes into the ledger and comes out of it. Times are microseconds since 1970, amounts pico-dollars."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from lumen.core.budget import Scope, Window

ESTIMATED = 1
"""Flag: some token count was not reported by the target."""
BEYOND = 2
"""Flag: the target billed more than was held for it."""
UNPRICED = 4
"""Flag: the target has no price, so that a cost of zero means unknown."""
LOST = "lost"
"""Outcome of what a gateway was doing when it died."""


class AttemptRow(NamedTuple):
    """One try at one target, in the order of the table's columns.

    `booked`: when the request was admitted, by the ledger's own clock; its windows and its day are counted by it.
    `began_us`, `first_us`, `ended_us`: of this try, after `booked`. Counts are `None` where nothing is known.
    `wake_us`, `queue_us`, `prefill_us`: how long it waited for a model to wake, for its turn, and then for the first
    token, of which a whole answer tells nothing; see `gateway/timing.py`.
    `score`: how likely its answer was good enough, from 0 to 1, as the route's scorer saw the request; `bar`: what that
    had to reach.
    `resumed_at`: how many tokens the client already had; `fidelity`: the rung of the ladder this try went on from.
    """

    request: str
    seq: int
    key: str
    route: str
    target: str
    provider: str
    model: str
    operation: str
    booked: int
    began_us: int
    first_us: int | None
    ended_us: int
    input: int | None
    output: int | None
    cached: int | None
    cache_write: int | None
    reasoning: int | None
    cost: int
    flags: int
    outcome: str
    resumed_at: int | None
    fidelity: str | None
    # What an earlier version wrote down beside its ledger ends before these.
    wake_us: int | None = None
    queue_us: int | None = None
    prefill_us: int | None = None
    score: float | None = None
    bar: float | None = None


class HoldRow(NamedTuple):
    """Money set aside for a request under way. `known`: what is charged where its end is never learned."""

    request: str
    key: str
    route: str
    target: str
    provider: str
    model: str
    operation: str
    booked: int
    amount: int
    known: int


@dataclass(frozen=True, slots=True)
class Opening:
    """What a ledger remembers when it is opened: totals for the budgets, and what was under way when it ended.

    `latest`: the newest time in it. `lost`: holds of a dead gateway, now charged what was known of them.
    `lengths`: (route, output tokens) of the newest complete answers, the oldest of them first.
    `held`: holds of a gateway that still finishes its requests, in the order in which they were admitted.
    """

    totals: list[tuple[Scope, Window, int, int]] = field(default_factory=list)
    latest: int = 0
    lost: int = 0
    lengths: list[tuple[str, int]] = field(default_factory=list)
    held: list[HoldRow] = field(default_factory=list)
