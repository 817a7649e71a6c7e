"""The small parts: ceilings, options, the document on the disk, the checker's process, an operator's word."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.config.schema import Route, Target
from lumen.core.errors import RequestError
from lumen.gateway.shadow import Job
from lumen.learning import options
from lumen.learning.ceiling import Ceiling
from lumen.learning.checking import Checking
from lumen.learning.checks import CheckerError
from lumen.learning.judging import agreement
from lumen.learning.kept import Kept
from lumen.learning.rolling import leads, promoted, written
from lumen.learning.trust import Trust
from lumen.ledger.labels import Anchor

pytestmark = pytest.mark.anyio


@given(
    limit=st.integers(0, 1_000),
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400), st.booleans()), max_size=60),
)
def test_no_ceiling_is_ever_passed_and_what_is_kept_forgets_nothing(
    limit: int, steps: list[tuple[int, int, bool]]
) -> None:
    ceiling, open_holds = Ceiling(limit), list[int]()
    for amount, cost, settle in steps:
        if settle and open_holds:
            held = open_holds.pop()
            ceiling.settle(held, min(cost, held))
        elif ceiling.hold(amount):
            open_holds.append(amount)
        assert ceiling.spent + ceiling.held <= limit
        assert ceiling.dump()["spent"] == ceiling.spent + sum(open_holds)


def test_what_does_not_fit_while_something_is_held_exhausts_nothing() -> None:
    ceiling = Ceiling(100)
    assert ceiling.hold(80) and not ceiling.hold(30) and not ceiling.exhausted
    ceiling.settle(80, 10)
    assert ceiling.hold(30)
    ceiling.settle(30, 30)
    assert not ceiling.hold(61) and not ceiling.exhausted
    # One that was too large is no end; five in a row are.
    assert ceiling.hold(1)
    ceiling.settle(1, 0)
    assert not any(ceiling.hold(61) for _ in range(5)) and ceiling.exhausted


def test_the_words_of_a_canary_become_its_plan() -> None:
    plan = options.plan(options.read('{"judge": "j", "steps": "2,50,100", "margin": ["quality=3%", "cost=0.1"]}'))
    assert plan.steps == (2, 50, 100) and plan.guards == ("quality", "ttft", "cost", "errors")
    assert (plan.margins.quality, plan.margins.cost, plan.margins.errors) == (0.03, 0.1, 0.02)
    assert options.plan(options.read("{}")).guards == ("ttft", "cost", "errors")
    assert options.plan(options.read('{"feedback": true, "guard": "quality"}')).guards == ("quality",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "cannot be read"),
        ('{"color": 1}', "cannot be read"),
        ('{"guard": "quality"}', "Nobody says"),
        ('{"guard": "luck"}', "the guards are"),
        ('{"steps": "1,2"}', "end at 100"),
        ('{"steps": "one"}', "Write --steps"),
        ('{"margin": ["quality=lots"]}', "Write --steps"),
        ('{"margin": ["luck=1%"]}', "Write --steps"),
    ],
)
def test_words_that_cannot_be_meant_are_told(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        options.plan(options.read(text))


@pytest.mark.parametrize(("given_share", "found"), [("5%", 0.05), ("1", 1.0), (None, 0.3)])
def test_shares(given_share: str | None, found: float) -> None:
    assert options.share(given_share, 0.3) == found


@pytest.mark.parametrize("wrong", ["0%", "101%", "much", "-1"])
def test_shares_that_are_none(wrong: str) -> None:
    with pytest.raises(RequestError, match="no share"):
        options.share(wrong, 0.1)


def test_a_promotion_puts_the_candidate_in_front_and_keeps_the_others() -> None:
    weighted = Route((Target("a", 3.0), Target("b")))
    assert written(weighted) == [{"model": "a", "weight": 3.0}, "b"]
    assert promoted(weighted, "c") == ["c", {"model": "a", "weight": 0}, {"model": "b", "weight": 0}]
    sticky = replace(weighted, policy="sticky")
    assert promoted(sticky, "c") == promoted(weighted, "c")
    assert promoted(weighted, "b") == ["b", {"model": "a", "weight": 0}]
    ordered = Route((Target("a"), Target("b", 2.0)), policy="ordered")
    assert promoted(ordered, "b") == ["b", "a"]
    assert promoted(ordered, "c") == ["c", "a", {"model": "b", "weight": 2.0}]


def test_who_has_all_of_the_traffic_is_no_candidate() -> None:
    a, b, spare = Target("a"), Target("b"), Target("b", 0.0)
    assert leads(Route((a,)), "a") and leads(Route((a, b), policy="ordered"), "a")
    assert leads(Route((a, spare)), "a") and leads(Route((spare, a), policy="sticky"), "a")
    for route, candidate in (
        (Route((a, b), policy="ordered"), "b"),
        (Route((a, b)), "a"),
        (Route((a, spare)), "b"),
        (Route((a, b), policy="cheapest"), "a"),
        (Route((spare,)), "a"),
    ):
        assert not leads(route, candidate)


async def test_what_a_look_at_a_judge_may_cost_is_on_the_disk_before_it_is_asked(tmp_path: Path) -> None:
    path, ceiling = tmp_path / "kept.json", Ceiling(1_000)
    kept = Kept(path, ceiling.dump, print)
    jobs: list[Job] = []
    seen: list[int] = []

    async def agreed(entry: Any, anchors: Any, paid: Any) -> Any:
        seen.append(json.loads(path.read_text())["spent"])
        paid(5)
        return agreement(1, 1)

    dark: Any = SimpleNamespace(local=lambda entry, *names: frozenset(), offer=jobs.append)
    labels: Any = SimpleNamespace(anchors=lambda route: [Anchor("p", "a", "b", "tie")] * 3)
    judge: Any = SimpleNamespace(source="judge", judge="j", most=lambda entry, size: 70, agreement=agreed)
    trust = Trust(dark, labels, lambda: 1e9, kept)
    await trust.look(SimpleNamespace(account="chat"), judge, ceiling)  # type: ignore[arg-type]
    await jobs[0].work()
    assert seen == [3 * 70]
    assert (ceiling.spent, ceiling.held) == (5, 0)
    await kept.close()


# -- the document on the disk --------------------------------------------------------------------------------


async def test_what_changed_is_on_the_disk_soon_and_at_the_end(tmp_path: Path) -> None:
    state: dict[str, Any] = {"n": 1}
    kept = Kept(tmp_path / "k.json", lambda: dict(state), lambda text: None)
    assert kept.load() == {}
    assert await kept.now() and json.loads((tmp_path / "k.json").read_text()) == {"n": 1}
    state["n"] = 2
    kept.soon()
    state["n"] = 3
    await kept.close()
    assert Kept(tmp_path / "k.json", dict, lambda text: None).load() == {"n": 3}


async def test_trouble_with_the_disk_is_told_once_and_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file" / "k.json", dict, told.append)
    assert not await kept.now() and not await kept.now()
    assert len(told) == 1
    (tmp_path / "k.json").write_text("{")
    assert Kept(tmp_path / "k.json", dict, told.append).load() == {}
    assert (tmp_path / "k.json.corrupt").exists() and "set aside" in told[1]


# -- the checker's process -----------------------------------------------------------------------------------


async def test_a_checker_rates_in_a_process_of_its_own_and_goes_on_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text("def check(request, answer):\n    print('noise')\n    return 1 / len(answer)\n")
    checking = Checking(f"python:{path}")
    try:
        await checking.ready()
        assert await checking.rate("", "ab", "") == 0.5
        with pytest.raises(CheckerError, match="ZeroDivisionError"):
            await checking.rate("", "", "")
        assert await checking.rate("", "abcd", "") == 0.25
    finally:
        await checking.close()


@pytest.mark.parametrize(
    ("body", "why"),
    [("while True:\n        pass", "took too long"), ("import os\n    os._exit(3)", "the checker ended")],
)
async def test_a_checker_that_hangs_or_dies_is_told_and_started_again(tmp_path: Path, body: str, why: str) -> None:
    path = tmp_path / "c.py"
    path.write_text(f"def check(request, answer):\n    if answer == 'good':\n        return 1\n    {body}\n")
    checking = Checking(f"python:{path}", each=1.0)
    try:
        assert await checking.rate("", "good", "") == 1.0
        with pytest.raises(CheckerError, match=why):
            await checking.rate("", "bad", "")
        assert await checking.rate("", "good", "") == 1.0
    finally:
        await checking.close()


async def test_a_checker_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    checking = Checking(f"schema:{tmp_path / 'none.json'}")
    with pytest.raises(CheckerError, match="cannot be read"):
        await checking.ready()
    await checking.close()


async def test_answers_wait_for_their_turn(tmp_path: Path) -> None:
    checking = Checking("regex:a")
    try:
        found = await asyncio.gather(*(checking.rate("", "a" if n % 2 else "b", "") for n in range(20)))
        assert found == [float(n % 2) for n in range(20)]
    finally:
        await checking.close()
