"""The limits of a route: its own over those of all, and what follows where it sets one of them alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from lumen.config.schema import Config, Timeouts
from lumen.gateway.health import Health
from lumen.gateway.table import resolved
from tests.gateway.healths import limits

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


def test_where_nobody_says_how_long_a_model_may_start_its_own_limit_holds_if_it_is_alone() -> None:
    assert BASE.ready is None
    for base, own, told in (
        (BASE, Timeouts(), (120.0, math.inf)),
        (replace(BASE, ready=40.0), Timeouts(), (40.0, 40.0)),
        (replace(BASE, ready=40.0), Timeouts(ready=700.0), (700.0, 700.0)),
        (BASE, Timeouts(first_token=20.0), (20.0, 20.0)),
    ):
        found = resolved(base, own)
        assert (found.ready, found.alone) == told
        health = Health(random.Random(1).random, 0.0, 0.0)
        for alone in (False, True):
            given = health.begin("m", 0.0, 100)
            assert given is not None
            assert limits(given, found, own, alone=alone, local=True).ready == told[alone]
