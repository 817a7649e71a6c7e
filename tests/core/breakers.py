"""Breakers in the states that tests begin with. `T`: Unix seconds."""

from __future__ import annotations

from lumen.core.breaker import FIRST_SPAN, IN_A_ROW, Breaker, State

T = 1_700_000_000.0


def fail(breaker: Breaker, now: float, began: float | None = None, ticket: int = 0, draw: float = 0.0) -> None:
    breaker.failed(now, now if began is None else began, ticket, "broke", draw=draw)


def state_of(breaker: Breaker) -> State:
    return breaker.state


def opened(now: float = T) -> Breaker:
    breaker = Breaker(now)
    for _ in range(IN_A_ROW):
        fail(breaker, now)
    assert breaker.state is State.OPEN
    return breaker


def half_open(now: float = T) -> tuple[Breaker, int]:
    breaker = opened(now - FIRST_SPAN)
    ticket = breaker.enter(now)
    assert ticket
    return breaker, ticket


def in_state(state: State) -> tuple[Breaker, int]:
    """A breaker in `state`, whose timer is due at T, and the ticket of its probe."""
    if state is State.HALF_OPEN:
        return half_open()
    breaker = Breaker(T - FIRST_SPAN) if state is not State.OPEN else opened(T - FIRST_SPAN)
    if state is State.EJECTED:
        breaker.eject(T - FIRST_SPAN, FIRST_SPAN, "operator")
    if state is State.DRAINED:
        breaker.drain(T - FIRST_SPAN, "operator")
    return breaker, 0
