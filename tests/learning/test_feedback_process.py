"""Feedback, anchors and judges, in a real gateway."""

from __future__ import annotations

import json
import re
import time

import pytest

from lumen.ledger.labels import Anchor, Labels
from tests.learning.box import Box, until
from tests.learning.provider import SAYS

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-learning")]


def labels(box: Box) -> list[tuple[str, dict[str, float], str]]:
    store = Labels(box.paths.ledger_file)
    try:
        return [(one.request, one.ok, one.form) for one in store.of("chat", 100, ("feedback",))]
    finally:
        store.close()


def test_feedback_becomes_a_label_and_moves_a_canary(box: Box) -> None:
    box.do("canary", "start", candidate="p/wrong", guard="quality", feedback=True, steps="50,100",
           margin=["quality=50%"])  # fmt: skip
    for number in range(40):
        (target,) = box.ask(1, first=number)
        status, told = box.post("/v1/feedback", {"request_id": box.log[-1], "ok": target == "p/right"})
        assert (status, told["score"]) == (200, float(target == "p/right"))
        if box.canary["phase"] == "rolled_back":
            break
    until(lambda: box.canary["phase"] == "rolled_back", "the end of it")
    request, ok, form = labels(box)[0]
    assert request == box.log[0] and list(ok) in (["p/right"], ["p/wrong"]) and form.startswith("features")


def test_what_is_said_twice_of_an_answer_is_evidence_once(box: Box) -> None:
    box.do("canary", "start", candidate="p/wrong", guard="quality", feedback=True, steps="50,100",
           margin=["quality=50%"], dwell=1)  # fmt: skip
    answered = box.ask(12)
    for request, target in zip(box.log[:12], answered, strict=True):
        for _ in range(20):
            # Who likes the worse answers better, and says so again and again, promotes nothing by that.
            assert box.post("/v1/feedback", {"request_id": request, "ok": target == "p/wrong"})[0] == 200
    assert box.canary["ratings"] == min(answered.count("p/wrong"), answered.count("p/right")) > 0
    assert len(labels(box)) == 12


def test_feedback_is_refused_where_it_makes_no_sense(box: Box) -> None:
    box.ask(1)
    mine = box.log[0]
    for body, status in (
        ({"request_id": "req_none", "ok": True}, 404),
        ({"request_id": mine}, 400),
        ({"request_id": mine, "ok": True, "score": 1}, 400),
        ({"request_id": mine, "score": 2}, 400),
        ({"request_id": mine, "ok": True, "more": 1}, 400),
        ([], 400),
    ):
        assert box.post("/v1/feedback", body)[0] == status, body
    # Without anything tried on the route the ledger knows whose request it was; it writes a moment later.
    until(lambda: box.post("/v1/feedback", {"request_id": mine, "score": 0.5})[0] == 200, "the ledger")
    assert [(request, ok) for request, ok, _ in labels(box)] == [(mine, {"p/right": 0.5})]


def test_only_the_key_that_asked_may_say_something(box: Box) -> None:
    text = box.config.read_text()
    box.config.write_text(text.replace("required: false", "required: true"))
    mine, other = (json.loads(box.lumen("key", "add", name, "--json"))["key"] for name in ("mine", "other"))
    box.admin.post("/admin/reload")
    import http.client

    host, port = box.url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)

    def post(path: str, body: object, key: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    status, headers = post(
        "/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}, mine
    )
    assert status == 200
    said = {"request_id": headers["x-request-id"], "ok": True}
    until(lambda: post("/v1/feedback", said, mine)[0] == 200, "the ledger")
    assert post("/v1/feedback", said, other)[0] == 404
    assert post("/v1/feedback", said, "wrong")[0] == 401


def anchors(count: int) -> list[Anchor]:
    """Half of them with the right answer first."""
    found = []
    for number in range(count):
        first, second = ("right", "wrong") if number % 2 else ("wrong", "right")
        found.append(Anchor(f"2 + 2, {number}?", SAYS[first], SAYS[second], "first" if number % 2 else "second"))
    return found


@pytest.mark.parametrize(("judge", "trusted"), [("p/judge", True), ("p/fickle", False)])
def test_a_judge_that_people_disagree_with_is_set_aside(box: Box, judge: str, trusted: bool) -> None:
    store = Labels(box.paths.ledger_file)
    store.anchor("chat", anchors(20), int(time.time() * 1e6))
    store.close()
    box.do("shadow", "start", candidate="p/wrong", share="100%", judge=judge)
    standing = until(
        lambda: (s := box.shadow["judge_standing"]) and s.get("asked") == 20 and s, "the judge to be looked at"
    )
    assert standing["trusted"] is trusted
    assert bool(re.search("set aside", standing["why"])) is not trusted
    box.ask(4)
    until(lambda: box.shadow["pairs"] == 4, "four pairs")
    report = box.admin.get("/admin/shadow/chat")["report"]
    assert report["judged"] == (4 if trusted else 0)
    assert box.admin.get("/admin/learn/chat")["labels"] == ({"judge": 4} if trusted else {})


def test_labels_of_a_judge_that_failed_are_not_learnt_from_after_its_shadow_either(box: Box) -> None:
    text = box.config.read_text()
    box.config.write_text(text.replace("[p/right]", "[p/right, p/wrong]"))
    box.admin.post("/admin/reload")
    for number, judge in enumerate(("p/fickle", "p/judge")):
        box.do("shadow", "start", candidate="p/wrong", share="100%", judge=judge)
        box.ask(4, first=4 * number)
        until(lambda: box.shadow["pairs"] == 4, "four pairs")
        box.do("shadow", "stop")
    assert box.do("learn", "learn", dry=True)["labels"] == 8
    store = Labels(box.paths.ledger_file)
    store.anchor("chat", anchors(20), int(time.time() * 1e6))
    store.close()
    box.do("shadow", "start", candidate="p/wrong", share="1%", judge="p/fickle")
    until(lambda: box.shadow["judge_standing"].get("asked") == 20, "the judge to be looked at")
    assert box.do("learn", "learn", dry=True)["labels"] == 4
    box.do("shadow", "stop")
    assert box.do("learn", "learn", dry=True)["labels"] == 4
