"""Canaries in a real gateway before an emulated provider: moved by evidence, and by operators."""

from __future__ import annotations

import json

import pytest
import yaml

from lumen.audit import AuditLog
from tests.learning.box import Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-learning")]
# Small enough that a test sees a whole rollout: wide margins need few answers.
QUICK = {"steps": "50,100", "dwell": 5, "margin": ["errors=50%", "quality=50%", "ttft=100%"]}


def audited(box: Box, action: str) -> list[dict[str, object]]:
    """What is on record of it, which is written a moment after it is so."""

    def found() -> list[dict[str, object]]:
        return [dict(e.details) for e in AuditLog(box.paths.audit_file).entries() if e.action == action]

    until(lambda: bool(found()), f"{action} on record")
    return found()


def drive(box: Box, phase: str, most: int = 400, **more: object) -> None:
    """Ask until the canary has come to `phase`."""
    first = len(box.log)
    while box.canary["phase"] != phase and len(box.log) < first + most:
        box.ask(20, at_once=2, first=len(box.log), **more)
    until(lambda: box.canary["phase"] == phase, f"{phase}: {box.canary}")


def test_a_candidate_that_is_as_good_is_promoted_and_written_into_the_configuration(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", **QUICK)
    drive(box, "promoted")
    text = box.config.read_text()
    assert "# The operator's own words." in text and "# Who answers." in text
    assert yaml.safe_load(text)["routes"]["chat"]["targets"] == ["p/right-too", "p/right"]
    assert set(box.ask(5, first=9_000)) == {"p/right-too"}
    # Once more would take from it what it has.
    assert "all of the traffic" in box.refused("canary", "start", candidate="p/right-too", guard="errors")
    (noted,) = audited(box, "canary.promoted")
    assert noted["candidate"] == "p/right-too"
    # An operator may take it back, and the file is as it was.
    box.do("canary", "rollback")
    assert yaml.safe_load(box.config.read_text())["routes"]["chat"]["targets"] == ["p/right"]
    assert set(box.ask(5, first=9_100)) == {"p/right"}
    assert len(audited(box, "canary.rolled_back")) == 1


def test_a_rollback_that_cannot_be_written_can_be_asked_for_again(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", **QUICK)
    assert box.do("canary", "approve")["phase"] == "promoted"
    text = box.config.read_text()
    box.config.write_text(f"{text}\nnonsense: [\n")
    assert "config.yaml" in box.refused("canary", "rollback")
    assert box.canary["phase"] == "promoted"
    box.config.write_text(text)
    assert box.do("canary", "rollback")["phase"] == "rolled_back"
    assert yaml.safe_load(box.config.read_text())["routes"]["chat"]["targets"] == ["p/right"]
    assert len(audited(box, "canary.rolled_back")) == 1


def test_a_broken_candidate_is_rolled_back_within_thirty_of_its_answers_and_nobody_notices(box: Box) -> None:
    box.do("canary", "start", candidate="p/dead", guard="errors", steps="25,100")
    drive(box, "rolled_back", stream=False)
    told = box.canary
    assert told["answers"] <= 30 and "errors" in told["reason"]
    # Every client had its answer, from the other target.
    assert yaml.safe_load(box.config.read_text())["routes"]["chat"]["targets"] == ["p/right"]
    assert len(audited(box, "canary.rolled_back")) == 1


def test_a_worse_candidate_is_found_out_by_the_judge(box: Box) -> None:
    box.do("canary", "start", candidate="p/wrong", guard="quality", judge="p/judge", share="100%", **QUICK)
    drive(box, "rolled_back")
    assert box.canary["ratings"] > 0 and "quality" in box.canary["reason"]
    report = box.admin.get("/admin/canary/chat")["report"]
    assert report["worse"] == report["judged"] > 0


def test_an_equal_candidate_is_promoted_by_the_judge(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="quality", judge="p/judge", share="100%", **QUICK)
    drive(box, "promoted")
    assert box.canary["ratings"] >= 5


def test_answers_that_are_not_streamed_are_evidence_of_their_time(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="ttft", **QUICK)
    drive(box, "promoted", stream=False)


def test_a_request_is_compared_for_the_canary_or_for_a_shadow(box: Box) -> None:
    """Each of them keeps one pair and one label of a request."""
    box.do("shadow", "start", candidate="p/wrong", share="100%", judge="p/judge")
    box.do("canary", "start", candidate="p/right-too", guard="quality", judge="p/judge", share="50%", steps="1,100")
    assert len(box.ask(40)) == 40

    def rests() -> bool:
        dark = box.trials()["dark"]
        return bool(dark["done"]) and not (dark["running"] or dark["waiting"])

    until(rests, "all of them")
    reports = [box.admin.get(f"/admin/{what}/chat")["report"]["pairs"] for what in ("canary", "shadow")]
    assert reports == [box.canary["ratings"], box.shadow["pairs"]] and min(reports) > 0
    assert box.admin.get("/admin/learn/chat")["labels"] == {"judge": sum(reports)}


def test_it_waits_for_a_word_where_it_was_told_to(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", wait=True, **QUICK)
    drive(box, "waiting")
    assert box.canary["percent"] == 50.0
    box.do("canary", "approve")
    assert box.canary["phase"] == "promoted"
    assert yaml.safe_load(box.config.read_text())["routes"]["chat"]["targets"][0] == "p/right-too"


def test_while_it_waits_it_is_still_guarded(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", wait=True, **QUICK)
    drive(box, "waiting")
    box.kill()
    box.up()
    box.provider.down.add("right-too")
    drive(box, "rolled_back", stream=False)
    assert "errors" in box.canary["reason"] and len(audited(box, "canary.rolled_back")) == 1
    assert yaml.safe_load(box.config.read_text())["routes"]["chat"]["targets"] == ["p/right"]


def test_a_conversation_keeps_its_side_and_the_share_is_as_told(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", steps="30,100", dwell=20_000)
    once = box.ask(200)
    assert box.ask(200) == once
    told = box.lumen("route", "explain", "chat", "--prompt", "hi")
    assert "p/right-too gets 30 % of the conversations" in told
    assert 0.15 < once.count("p/right-too") / 200 < 0.45
    assert box.do("canary", "stop")["phase"] == "stopped"
    assert set(box.ask(20)) == {"p/right"}
    assert "of the conversations" not in box.lumen("route", "explain", "chat", "--prompt", "hi")


def test_a_kill_in_the_middle_loses_no_evidence_to_speak_of_and_no_share(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", steps="50,100", dwell=20_000)
    before = box.ask(60)
    kept = box.home / "state" / "trials.json"
    answers = box.canary["answers"]
    until(lambda: json.loads(kept.read_text())["canaries"]["of"][0]["canary"]["answers"] == answers, "the file")
    evidence = box.canary["guards"]
    box.kill()
    box.up()
    assert box.canary["phase"] == "running" and box.canary["answers"] == answers
    assert box.canary["guards"] == evidence
    assert box.ask(60) == before


def test_a_promotion_that_a_kill_cut_off_is_carried_out_by_the_next_start(box: Box) -> None:
    box.do("canary", "start", candidate="p/right-too", guard="errors", **QUICK)
    kept = box.home / "state" / "trials.json"
    box.kill()
    state = json.loads(kept.read_text())
    one = state["canaries"]["of"][0]
    one["canary"]["status"], one["phase"] = "promoted", "promoting"
    kept.write_text(json.dumps(state))
    box.up()
    until(lambda: box.canary["phase"] == "promoted", "the promotion")
    assert yaml.safe_load(box.config.read_text())["routes"]["chat"]["targets"][0] == "p/right-too"


def test_what_the_candidate_cannot_serve_goes_where_it_went(box: Box) -> None:
    text = box.config.read_text()
    limited = "right-too: {price: {input: 1, output: 2}, context: 500, capabilities: {tools: false}}"
    box.config.write_text(text.replace("free: {}", limited))
    box.admin.post("/admin/reload")
    box.do("canary", "start", candidate="p/right-too", guard="errors", steps="90,100", dwell=20_000)
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    assert set(box.ask(20, tools=tools)) == {"p/right"}
    assert set(box.ask(10, max_tokens=600, first=20)) == {"p/right"}
    # They are no evidence, for or against it.
    assert box.canary["answers"] == 0
    assert "p/right-too" in box.ask(20)


def test_what_cannot_be_rolled_out_is_refused_with_the_reason(box: Box) -> None:
    text = box.config.read_text()
    box.config.write_text(text.replace("routes:", "  q: {base_url: 'http://127.0.0.1:9/v1', dialect: openai}\nroutes:"))
    box.admin.post("/admin/reload")
    assert "Nobody says how good" in box.refused("canary", "start", candidate="p/wrong", guard="quality")
    assert "steps must rise" in box.refused("canary", "start", candidate="p/wrong", steps="5,1,100")
    assert "all of the traffic" in box.refused("canary", "start", candidate="p/right")
    assert "no target" in box.refused("canary", "start", candidate="r/none")
    assert "has had no canary" in box.refused("canary", "approve")
    assert "its cost cannot be guarded" in box.refused("canary", "start", candidate="q/unpriced")
    box.do("canary", "start", candidate="p/wrong")
    assert "already" in box.refused("canary", "start", candidate="p/wrong")
    box.do("canary", "rollback")
    assert "has ended: rolled_back" in box.refused("canary", "stop")
