"""While a local model wakes the others answer; it is waited for only where they cannot."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lumen.core.errors import RefusedError, Retry, UnavailableError, WakingError
from lumen.core.resume import Asked
from lumen.core.trace import Trace
from lumen.gateway.course import Course
from lumen.gateway.health import Health
from lumen.gateway.tab import Offer
from lumen.gateway.table import Target
from lumen.providers.base import Capabilities

ASKED = Asked(chat=True, stream=True, answers=1, json=False, temperature=0, seed=None)
NOT_THERE = WakingError("The model 'm' is still starting.")


def course(*names: str, cover: bool = True) -> Course:
    nothing: Any = None
    plan = [
        (Target(name, name, nothing, nothing, Capabilities(local="/" not in name), Offer(name, "", name, None)), "told")
        for name in names
    ]
    health = Health(random.Random(1).random, 0.0, 0.0)
    return Course(plan, Trace(1), ASKED, health, around_filter=False, clock=lambda: 0.0, draw=lambda: 0.5, cover=cover)


def way(of: Course) -> tuple[str, bool] | None:
    """The next target, and whether it is waited for."""
    leg = of.next()
    return None if leg is None else (leg.target.name, leg.patient)


def test_a_model_that_wakes_is_not_waited_for_while_another_can_answer() -> None:
    of = course("m", "p/a")
    assert way(of) == ("m", False)
    of.refused(NOT_THERE)
    assert way(of) == ("p/a", True)


@pytest.mark.parametrize("failure", [UnavailableError("no key"), None])
def test_where_nobody_could_cover_it_is_waited_for_once(failure: UnavailableError | None) -> None:
    of = course("m", "p/a")
    way(of)
    of.refused(NOT_THERE)
    way(of)
    if failure is not None:
        of.refused(failure)
    else:
        leg = of._leg
        assert leg is not None
        of.failed(leg, RefusedError("no", phase="headers", upstream_status=503, retry=Retry.OTHER), progressed=False)
    assert way(of) == ("m", True)
    of.refused(NOT_THERE)
    assert way(of) is None
    assert of.verdict() is NOT_THERE


def test_two_local_models_cover_for_each_other() -> None:
    of = course("m", "n")
    seen = []
    while (step := way(of)) is not None:
        seen.append(step)
        of.refused(NOT_THERE)
    assert seen == [("m", False), ("n", False), ("m", True), ("n", True)]


def test_without_cover_and_alone_it_is_waited_for() -> None:
    assert way(course("m", "p/a", cover=False)) == ("m", True)
    assert way(course("m")) == ("m", True)


def test_a_model_that_failed_is_not_one_that_wakes() -> None:
    of = course("m", "p/a")
    way(of)
    of.refused(UnavailableError("The model 'm' cannot be started."))
    assert way(of) == ("p/a", True)
    of.refused(UnavailableError("no key"))
    assert way(of) is None
