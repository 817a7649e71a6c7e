"""The limits of a route: its own over those of all, and what follows where it sets one of them alone."""

from __future__ import annotations

from lumen.config.schema import Config, Timeouts
from lumen.gateway.table import resolved

BASE = Config().timeouts


def test_what_a_route_sets_goes_before_what_all_have() -> None:
    found = resolved(BASE, Timeouts(gap=2.0))
    assert (found.gap, found.first_token, found.ready, found.queue) == (2.0, 60.0, 120.0, 30.0)


def test_a_limit_of_the_first_token_alone_is_also_meant_for_the_waits_before_it() -> None:
    found = resolved(BASE, Timeouts(first_token=20.0))
    assert (found.first_token, found.ready, found.queue) == (20.0, 20.0, 10.0)
    assert resolved(BASE, Timeouts(first_token=90.0)).queue == 30.0, "never longer for that"
    found = resolved(BASE, Timeouts(first_token=20.0, ready=60.0, queue=300.0))
    assert (found.ready, found.queue) == (60.0, 300.0)
