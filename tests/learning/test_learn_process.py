"""`lumen route learn` in a real gateway: learnt beside it, put in force, used by requests, taken back."""

from __future__ import annotations

import random

import msgspec
import pytest

from lumen.audit import AuditLog
from lumen.ledger.labels import Label, Labels
from tests.learning.box import Box
from tests.learning.test_fitting import EASY, HARD, traffic, turned

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-learning")]


_numbers = random.Random(99)


def teach(box: Box, many: int, seed: int = 1) -> None:
    keep(box, traffic(many, seed))


def keep(box: Box, labels: list[Label]) -> None:
    store = Labels(box.paths.ledger_file)
    for label in labels:
        named = {f"p/{'wrong' if name == 'cheap' else 'right'}": ok for name, ok in label.ok.items()}
        tokens = {name: 6.0 + label.at % 7 for name in named}
        store.add(msgspec.structs.replace(label, ok=named, tokens=tokens))
    store.close()


@pytest.fixture
def learning(box: Box) -> Box:
    text = box.config.read_text().replace("policy: ordered", "policy: auto\n    max_loss: 2%")
    text = text.replace("[p/right]", "[p/right, p/wrong]").replace(
        "free: {}", "right: {price: {input: 10, output: 20}}"
    )
    box.config.write_text(text)
    box.admin.post("/admin/reload")
    return box


def who(box: Box, text: str) -> str:
    import asyncio

    import aiohttp

    async def ask() -> str:
        body = {"model": "chat", "messages": [{"role": "user", "content": text}]}
        async with aiohttp.ClientSession() as session, session.post(f"{box.url}/chat/completions", json=body) as answer:
            await answer.read()
            return answer.headers["x-lumen-target"]

    return asyncio.run(ask())


def away(box: Box, text: str) -> int:
    """How many of ten requests of this kind, each a new conversation, leave the strong target."""
    return [who(box, text.format(_numbers.randrange(10_000))) for _ in range(10)].count("p/wrong")


def test_what_is_learnt_is_in_force_at_once_versioned_and_taken_back(learning: Box) -> None:
    box = learning
    assert away(box, EASY) == 0
    teach(box, 200)
    assert box.do("learn", "learn")["missing"] == 100
    teach(box, 700, 1)
    dry = box.do("learn", "learn", dry=True)
    assert dry["version"] is None and dry["figures"]["certified"]["p/wrong"]["share"] > 0.3
    assert away(box, EASY) == 0
    said = box.lumen("route", "learn", "chat")
    assert "Learnt from 700 labels, against p/right." in said and "Version 1 is in force." in said
    assert away(box, EASY) >= 6 and away(box, HARD) <= 1
    assert box.do("learn", "learn")["version"] == 2
    assert "in force" in box.lumen("route", "learn", "chat", "--versions")
    assert box.do("learn", "rollback")["version"] == 1
    assert away(box, EASY) >= 6
    assert box.do("learn", "rollback")["version"] is None
    assert away(box, EASY) == 0
    actions = [entry.action for entry in AuditLog(box.paths.audit_file).entries()]
    assert actions.count("route.learn") == 2 and actions.count("route.unlearn") == 2


def test_what_is_in_force_is_withdrawn_where_traffic_has_turned_against_it(learning: Box) -> None:
    box = learning
    teach(box, 800)
    assert box.do("learn", "learn")["version"] == 1
    assert away(box, EASY) >= 6
    keep(box, turned())
    dry = box.do("learn", "learn", dry=True)
    assert dry["refused"] and dry["withdrawn"] is None and away(box, EASY) >= 6
    said = box.lumen("route", "learn", "chat")
    assert "Not put in force" in said and "Version 1 is withdrawn, everything stays with p/right" in said
    assert away(box, EASY) == 0
    (noted,) = [entry for entry in AuditLog(box.paths.audit_file).entries() if entry.action == "route.unlearn"]
    assert noted.details["withdrawn"] == 1
    # An operator may see it otherwise.
    assert box.do("learn", "rollback", version=1)["version"] == 1
    assert away(box, EASY) >= 6


def test_labels_of_what_is_no_target_of_the_route_do_not_count_and_that_is_told(box: Box) -> None:
    teach(box, 20)
    said = box.lumen("route", "learn", "chat")
    assert "Labels of p/wrong do not count: it is no target of chat" in said
    assert "0 labels: 300 more are needed" in said


def test_a_restart_keeps_what_was_learnt_and_a_shadow_draws_by_it(learning: Box) -> None:
    box = learning
    teach(box, 600)
    assert box.do("learn", "learn")["version"] == 1
    box.kill()
    box.up()
    assert away(box, EASY) >= 6
    # Hard requests are answered by the strong target, and drawn by the loss that is expected of the other.
    box.do("shadow", "start", candidate="p/wrong", share="25%")
    hard = [who(box, HARD.format(_numbers.randrange(10_000))) for _ in range(30)]
    strong = hard.count("p/right")
    assert strong >= 25
    import json

    from tests.learning.box import until

    def settled() -> bool:
        dark = box.trials()["dark"]
        return box.shadow["seen"] == strong and not (dark["running"] or dark["waiting"])

    until(settled, "the draws")
    until(
        lambda: sum(json.loads((box.home / "state" / "trials.json").read_text())["shadows"]["live"][0]["strata"]) > 0,
        "the bands on the disk",
    )
    assert 0 < box.shadow["pairs"] <= strong
