"""A shadow in a real gateway before an emulated provider."""

from __future__ import annotations

import psutil
import pytest

from tests.learning.box import Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-learning")]
ALL = {"candidate": "p/wrong", "share": "100%"}


def test_a_shadow_compares_in_the_dark_and_the_report_says_how_both_did(box: Box) -> None:
    started = box.do("shadow", "start", **ALL, judge="p/judge", texts=True)
    assert started["running"] and started["budget"] == 10**12
    assert set(box.ask(6)) == {"p/right"} and set(box.ask(6, stream=False, first=6)) == {"p/right"}
    until(lambda: box.shadow["pairs"] == 12, "twelve pairs")
    told = box.admin.get("/admin/shadow/chat")
    report = told["report"]
    assert (report["pairs"], report["judged"], report["worse"], report["better"]) == (12, 12, 12, 0)
    assert report["quality_change"] == -1.0 and report["by"] == ["judge"]
    assert report["candidate"]["cost"] == (10 * 1 + 8 * 2) * 10**6
    assert report["candidate"]["ttft"] is not None and report["candidate"]["tokens"] == 8
    assert told["samples"][0]["candidate"].endswith("wrong.")
    # Two questions to the judge and one to the candidate for each.
    assert box.provider.asked["judge"] == 24 and box.provider.asked["wrong"] == 12
    assert told["spent"] == (24 + 12) * 26 * 10**6
    versions = box.admin.get("/admin/learn/chat")
    assert versions["labels"] == {"judge": 12} and versions["versions"] == []


def test_a_shadow_goes_on_after_a_kill_and_forgets_no_money(box: Box) -> None:
    box.do("shadow", "start", **ALL)
    box.ask(5)
    until(lambda: box.shadow["pairs"] == 5, "five pairs")
    spent = box.shadow["spent"]
    run = box.shadow["run"]
    until(lambda: '"pairs":5' in (box.home / "state" / "trials.json").read_text(), "the count on the disk")
    box.kill()
    box.up()
    assert box.shadow["run"] == run and box.shadow["pairs"] == 5 and box.shadow["spent"] >= spent
    box.ask(3, first=5)
    until(lambda: box.shadow["pairs"] == 8, "three more")
    assert box.do("shadow", "stop")["running"] is False
    box.ask(2, first=9)
    assert box.provider.asked["wrong"] == 8
    assert box.shadow["pairs"] == 8 and not box.shadow["running"]


def test_a_budget_that_is_used_up_ends_the_shadow_and_nothing_else(box: Box) -> None:
    # A request comes to 26 micro-dollars, its worst case to several hundred.
    box.do("shadow", "start", **ALL, budget="0.001usd")
    assert box.ask(60, at_once=1, max_tokens=8) == ["p/right"] * 60
    until(lambda: box.ask(1, max_tokens=8) and not box.shadow["running"], "the end of the budget")
    told = box.shadow
    assert told["why"] == "the budget is used up"
    assert not told["running"] and 0 < told["spent"] <= told["budget"] and told["held"] == 0
    asked = box.provider.asked["wrong"]
    box.ask(4, first=60, max_tokens=8)
    assert box.provider.asked["wrong"] == asked


def test_a_judge_that_is_down_costs_labels_and_no_answer(box: Box) -> None:
    box.provider.down.add("judge")
    box.do("shadow", "start", **ALL, judge="p/judge")
    assert set(box.ask(3)) == {"p/right"}
    until(lambda: box.shadow["pairs"] == 3, "three pairs")
    report = box.admin.get("/admin/shadow/chat")["report"]
    assert (report["pairs"], report["judged"]) == (3, 0)
    assert "could not be asked" in box.shadow["why"]


@pytest.mark.parametrize("checker", [None, "regex:right"])
def test_a_target_that_is_down_for_a_moment_is_no_word_on_its_answers(box: Box, checker: str | None) -> None:
    box.provider.down.add("wrong")
    judged = {"checker": checker} if checker else {"judge": "p/judge"}
    box.do("shadow", "start", **ALL, **judged)
    box.ask(3)
    until(lambda: box.shadow["pairs"] == 3, "three pairs")
    report = box.admin.get("/admin/shadow/chat")["report"]
    assert (report["candidate"]["failed"], report["judged"], report["quality_change"]) == (3, 0, None)
    assert box.admin.get("/admin/learn/chat")["labels"] == {}
    assert "p/wrong failed" in box.shadow["why"]


def test_what_is_run_in_the_dark_goes_first_when_clients_come(box: Box) -> None:
    text = box.config.read_text()
    box.config.write_text(text.replace("[p/right]", "[p/wrong]"))
    box.admin.post("/admin/reload")
    box.provider.pause = 1.0
    box.do("shadow", "start", candidate="p/refuses", share="100%")
    assert box.ask(4) == ["p/wrong"] * 4
    # More clients at once than the dark tolerates: their answers come, and what nobody waits for goes.
    assert box.ask(40, at_once=40, first=10) == ["p/wrong"] * 40
    dark = box.trials()["dark"]
    assert dark["cancelled"] >= 4, dark
    box.provider.pause = 0.0
    box.ask(2, first=60)
    until(lambda: box.shadow["pairs"] >= 2, "pairs once there is room again")
    until(lambda: box.shadow["held"] == 0, "everything held to be let go")


def test_clients_at_the_same_remote_target_are_in_nobodys_way(box: Box) -> None:
    """A route that sends some requests to the candidate must not lose its labels of the others to them."""
    box.provider.pause = 0.8
    box.do("shadow", "start", **ALL)
    box.ask(2)
    assert box.ask(4, first=2, model="p/wrong") == ["p/wrong"] * 4
    until(lambda: box.shadow["pairs"] == 2, "both pairs")
    assert box.trials()["dark"]["cancelled"] == 0


def test_calls_of_functions_are_checked_where_they_are_known(box: Box) -> None:
    function = {"name": "find", "parameters": {"type": "object"}}
    box.do("shadow", "start", candidate="p/tool", share="100%")
    more = {"tools": [{"type": "function", "function": function}]}
    box.ask(2, **more)
    box.ask(2, stream=False, first=2, **more)
    until(lambda: box.shadow["pairs"] == 4, "four pairs")
    candidate = box.admin.get("/admin/shadow/chat")["report"]["candidate"]
    assert (candidate["tool_calls"], candidate["tool_calls_valid"]) == (4, 0.0)
    box.do("shadow", "stop")
    # The other way round: what a stream called is not known where its request would not be answered the same again.
    text = box.config.read_text()
    box.config.write_text(text.replace("[p/right]", "[p/tool]"))
    box.admin.post("/admin/reload")
    box.do("shadow", "start", candidate="p/right", share="100%")
    box.ask(2, first=4, temperature=1, **more)
    box.ask(1, first=6, stream=False, **more)
    until(lambda: box.shadow["pairs"] == 1, "the one that is known")
    assert box.shadow["seen"] == 1
    assert box.admin.get("/admin/shadow/chat")["report"]["incumbent"]["tool_calls"] == 1


def test_what_the_candidate_cannot_serve_is_not_asked_of_it(box: Box) -> None:
    text = box.config.read_text()
    box.config.write_text(text.replace("free: {}", "wrong: {price: {input: 1, output: 2}, context: 500}"))
    box.admin.post("/admin/reload")
    box.do("shadow", "start", **ALL, judge="p/judge")
    box.ask(2, max_tokens=600)
    why = until(lambda: box.shadow["skipped"], "it to be told")
    assert [name.partition(": ")[0] for name in why] == ["p/wrong cannot be asked"]
    assert box.provider.asked["wrong"] == box.provider.asked["judge"] == box.shadow["pairs"] == 0


@pytest.mark.parametrize("gone", ["candidate", "judge"])
def test_a_target_that_is_gone_from_the_configuration_is_told(box: Box, gone: str) -> None:
    text = box.config.read_text()
    models = "models: {'*': {price: {input: 1, output: 1}}}"
    second = f"  q: {{base_url: 'http://127.0.0.1:{box.provider.port}/v1', dialect: openai, {models}}}\n"
    box.config.write_text(text.replace("routes:", f"{second}routes:"))
    box.admin.post("/admin/reload")
    named = {"candidate": "p/wrong", "judge": "p/judge"} | {gone: "q/judge"}
    box.do("shadow", "start", share="100%", **named)
    box.config.write_text(text)
    box.admin.post("/admin/reload")
    assert set(box.ask(2)) == {"p/right"}
    why = until(lambda: sum(box.shadow["skipped"].values()) == 2 and box.shadow["skipped"], "it to be told")
    assert list(why) == ["There is no target 'q/judge'." if gone == "candidate" else "the judge could not be asked"]
    assert "failed" not in (box.home / "log").read_text()


def test_what_cannot_be_run_is_refused_with_the_reason(box: Box) -> None:
    assert "no target" in box.refused("shadow", "start", candidate="q/none")
    assert "share" in box.refused("shadow", "start", **{**ALL, "share": "200%"})
    assert "no checker" in box.refused("shadow", "start", **ALL, checker="nonsense")
    assert "cannot be read" in box.refused("shadow", "start", **ALL, checker="schema:/nowhere.json")
    assert "options cannot be read" in box.refused("shadow", "start", **ALL, colour="red")
    box.do("shadow", "start", **ALL)
    assert "already" in box.refused("shadow", "start", **ALL)


def test_what_the_routes_money_cannot_ask_is_refused_with_the_reason(box: Box) -> None:
    text = box.config.read_text().replace("free: {}", "dear: {price: {input: 1, output: 9}}")
    box.config.write_text(f"{text.rstrip()}\n    budget: {{max_cost: 5}}\n")
    box.admin.post("/admin/reload")
    for what, named in (("shadow", {}), ("canary", {"guard": "errors"})):
        assert "'p/dear' cannot be asked" in box.refused(what, "start", candidate="p/dear", **named)
        assert "costs at most" in box.refused(what, "start", candidate="p/wrong", judge="p/dear", **named)
        assert box.do(what, "start", candidate="p/wrong", judge="p/judge", **named)["candidate"] == "p/wrong"


def test_a_checker_of_the_operators_own_rates_both(box: Box) -> None:
    path = box.home / "check.py"
    path.write_text("def check(request, answer):\n    return 'is right' in answer\n")
    box.do("shadow", "start", **ALL, checker=f"python:{path}")
    box.ask(2)
    until(lambda: box.shadow["pairs"] == 2, "two pairs")
    report = box.admin.get("/admin/shadow/chat")["report"]
    assert report["by"] == ["checker"] and report["worse"] == 2


def checkers(box: Box) -> list[psutil.Process]:
    """The processes of checkers that the gateway has started."""
    assert box.process is not None
    found = psutil.Process(box.process.pid).children(recursive=True)
    return [one for one in found if "lumen.learning.checker" in one.cmdline()]


@pytest.mark.parametrize(("first", "candidate", "worse"), [
    ("p/right", "p/wrong", 2), ("p/right", "p/right-too", 0), ("p/wrong", "p/wrong", 2)
])  # fmt: skip
def test_what_says_something_else_than_the_incumbent_is_worse(box: Box, first: str, candidate: str, worse: int) -> None:
    """Also where the client was answered by the candidate, and the strong target is asked in the dark."""
    text = box.config.read_text().replace("[p/right]", "[p/wrong, p/right]" if first == "p/wrong" else "[p/right]")
    box.config.write_text(text.replace("policy: ordered", "policy: ordered\n    strong: p/right"))
    box.admin.post("/admin/reload")
    box.do("shadow", "start", candidate=candidate, share="100%", checker="exact")
    assert box.ask(2) == [first] * 2
    until(lambda: box.shadow["pairs"] == 2, "two pairs")
    report = box.admin.get("/admin/shadow/chat")["report"]
    assert (report["judged"], report["worse"], report["equal"]) == (2, worse, 2 - worse)


def test_a_shadow_that_is_stopped_asks_nothing_more_and_leaves_no_checker_behind(box: Box) -> None:
    box.provider.pause = 0.5
    box.do("shadow", "start", **ALL, checker="regex:right")
    assert len(checkers(box)) == 1
    box.ask(12)
    until(lambda: box.trials()["dark"]["running"] == 4, "the first to be under way")
    box.do("shadow", "stop")
    asked = box.provider.asked["wrong"]
    until(lambda: not (box.trials()["dark"]["running"] or box.trials()["dark"]["waiting"]), "the end of the rest")
    assert box.provider.asked["wrong"] == asked <= 8
    assert checkers(box) == []


def test_requests_that_the_candidate_answered_itself_are_compared_too(box: Box) -> None:
    """A route that sends the easy requests away already must not learn from the hard ones alone."""
    text = box.config.read_text()
    box.config.write_text(text.replace("[p/right]", "[p/right, p/wrong]").replace("ordered", "weighted"))
    box.admin.post("/admin/reload")
    box.do("shadow", "start", **ALL, judge="p/judge")
    answered = box.ask(30)
    assert {"p/right", "p/wrong"} == set(answered)
    until(lambda: box.shadow["pairs"] == 30, "thirty pairs")
    assert box.provider.asked["right"] == box.provider.asked["wrong"] == 30
    report = box.admin.get("/admin/shadow/chat")["report"]
    assert report["incumbent"]["targets"] == ["p/right"] and report["candidate"]["targets"] == ["p/wrong"]
    assert report["worse"] == 30


@pytest.mark.parametrize(
    "trouble", ['{"trust": 7, "nights": [], "shadows": {"live": [{}]}, "canaries": {"of": [3]}}', "{"]
)
def test_a_gateway_starts_with_whatever_it_finds(box: Box, trouble: str) -> None:
    box.kill()
    (box.home / "state" / "trials.json").write_text(trouble)
    box.up()
    assert box.trials()["shadows"] == [] and box.ask(1) == ["p/right"]


@pytest.mark.parametrize("where", ["policy: ordered\n    ", "auth: {required: false}\n"])
def test_nothing_is_tried_where_nothing_may_be_kept(box: Box, where: str) -> None:
    text = box.config.read_text()
    box.config.write_text(text.replace(where.strip(), f"{where}retention: none"))
    box.admin.post("/admin/reload")
    box.do("shadow", "start", **ALL, judge="p/judge", texts=True)
    box.ask(4)
    box.config.write_text(text)
    box.admin.post("/admin/reload")
    box.ask(1, first=9)
    until(lambda: box.shadow["pairs"] == 1, "the one that may be kept")
    assert box.provider.asked["wrong"] == 1
