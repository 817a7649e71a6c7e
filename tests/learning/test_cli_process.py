"""The commands of shadows, canaries, feedback and learning, against a real gateway."""

from __future__ import annotations

import json

import pytest

from lumen.audit import AuditLog
from tests.learning.box import Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-learning")]


def test_a_shadow_from_its_start_to_its_report(box: Box) -> None:
    said = box.lumen("shadow", "start", "chat", "--candidate", "p/wrong", "--share", "100%", "--judge", "p/judge",
                     "--budget", "2usd", "--texts")  # fmt: skip
    assert "100 % of the requests of chat are asked of p/wrong too, for at most 2usd" in said
    box.ask(3)
    until(lambda: box.shadow["pairs"] == 3, "three pairs")
    assert "3 of 3" in box.lumen("shadow", "status")
    assert json.loads(box.lumen("shadow", "status", "--json"))["shadows"][0]["pairs"] == 3
    report = box.lumen("shadow", "report", "chat")
    assert "worse in 3" in report and "-100.0 points" in report and "which is wrong." in report
    assert "has ended after 3 pairs" in box.lumen("shadow", "stop", "chat")


def test_anchors_are_read_from_a_file(box: Box) -> None:
    file = box.home / "anchors.jsonl"
    file.write_text(json.dumps({"prompt": "p", "first": "a", "second": "b", "verdict": "tie"}) + "\n\n")
    assert "chat has 1 anchors" in box.lumen("shadow", "anchors", "chat", str(file))
    noted = [entry for entry in AuditLog(box.paths.audit_file).entries() if entry.action == "shadow.anchors"]
    assert len(noted) == 1 and noted[0].details == {"given": 1, "now": 1}
    with pytest.raises(AssertionError, match=r"there is no route 'chta'.*did you mean 'chat'"):
        box.lumen("shadow", "anchors", "chta", str(file))
    with pytest.raises(AssertionError, match=r"gone\.jsonl: No such file"):
        box.lumen("shadow", "anchors", "chat", str(file.with_name("gone.jsonl")))
    file.write_text('{"prompt": "p", "first": "a", "second": "b", "verdict": "neither"}\n')
    with pytest.raises(AssertionError, match="line 1: the verdict must be"):
        box.lumen("shadow", "anchors", "chat", str(file))


def test_a_canary_by_hand(box: Box) -> None:
    said = box.lumen("canary", "start", "chat", "--candidate", "p/right-too", "--steps", "50,100", "--guard", "errors")
    assert "p/right-too gets 50 % of the conversations of chat, guarded by errors" in said
    assert "chooses" not in said
    box.ask(4)
    assert "running, step 1 of 2" in box.lumen("canary", "status")
    assert "promoted" in box.lumen("canary", "approve", "chat")
    assert "p/right-too" in box.lumen("route", "show", "chat")
    assert "started at 50 %" in box.lumen("canary", "status", "chat")
    assert "rolled back" in box.lumen("canary", "rollback", "chat")
    assert box.ask(3) == ["p/right"] * 3
    asked = [e.subject.split()[:2] for e in AuditLog(box.paths.audit_file).entries() if e.action == "gateway.canary"]
    assert asked == [["chat", "start"], ["chat", "approve"], ["chat", "rollback"]]


def test_where_the_policy_goes_on_choosing_that_is_told(box: Box) -> None:
    box.config.write_text(box.config.read_text().replace("ordered", "cheapest"))
    box.admin.post("/admin/reload")
    said = box.lumen("canary", "start", "chat", "--candidate", "p/right-too", "--guard", "errors")
    assert "of which the policy of chat, cheapest, chooses" in said


def test_feedback_by_hand(box: Box) -> None:
    box.ask(1)
    until(lambda: box.admin.get("/admin/learn/chat") is not None, "the gateway")

    def said() -> str:
        try:
            return box.lumen("feedback", box.log[0], "--score", "0.25")
        except AssertionError as error:
            assert "no such request" in str(error)
            return ""

    assert until(said, "the ledger").strip() == f"{box.log[0]}: 0.25"
    assert "1 by feedback" in box.lumen("route", "learn", "chat", "--versions")


def test_learning_from_too_little_changes_nothing(box: Box) -> None:
    box.config.write_text(box.config.read_text().replace("[p/right]", "[p/right, p/wrong]"))
    box.admin.post("/admin/reload")
    said = box.lumen("route", "learn", "chat")
    assert "0 labels: 300 more are needed. Nothing is changed." in said
    with pytest.raises(AssertionError, match="Nothing that 'chat' has learnt is in force"):
        box.lumen("route", "learn", "chat", "--rollback")
