from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from lumen.gateway.access import AccessLog
from lumen.gateway.attempt import Record
from lumen.gateway.settled import Settled
from lumen.ledger.rows import AttemptRow
from lumen.paths import Paths
from lumen.wire.answers import Usage
from tests.cli.harness import Ran
from tests.ledger.ledgers import attempt, opened

ID = "req_0123456789abcdef01234567"


def settled() -> Settled:
    broken = Record("a/x", "weight 9", 100.0, ended=100.4, outcome="upstream_disconnected", first_token=100.1)
    broken.score = 0.991
    last = Record("b/y", "fallback", 100.41, rung="prefill", position=4, first_token=100.6, ended=101.0, outcome="ok")
    last.usage = Usage(10, 20, 30)
    return Settled(ID, "chat", "fast", "key-1", 1e9, 100.0, 101.0, "ok", True, [broken, last], 7)


def tries() -> list[AttemptRow]:
    return [
        attempt(ID, 1, cost=30, target="a/x", outcome="upstream_disconnected", first_us=100_000, ended_us=400_000),
        attempt(ID, 2, cost=40, target="b/y", began_us=410_000, first_us=600_000, ended_us=1_000_000, resumed_at=4,
                fidelity="prefill", wake_us=90_000, queue_us=5_250, prefill_us=94_750, score=0.98234, bar=0.97),
    ]  # fmt: skip


def written(home: Paths, *, pretty: bool) -> None:
    async def book() -> None:
        async with opened(home.ledger_file) as (ledger, _):
            ledger.settle(tries(), None)
        lines: list[str] = []
        log = AccessLog(lines.append, pretty=pretty)
        log.take([settled()])
        log.flush()
        home.gateway_log.write_text("12:00:00 listening\n" + "".join(lines) + '{"event":"request","id":"req_other"}\n')

    asyncio.run(book())


def test_a_request_is_put_together_again_from_log_and_ledger(lumen: Callable[..., Ran], home: Paths) -> None:
    written(home, pretty=False)
    told = lumen("logs", "--request", ID)
    assert told.code == 0
    assert "chat on fast, ok" in told.out and "first token after 100.0 ms, 1000.0 ms in all" in told.out
    assert "prefill at token 4" in told.out and "upstream_disconnected" in told.out and "410.0" in told.out
    assert [part in told.out for part in ("wake ms", "90.0", "5.25", "94.75")] == [True] * 4
    assert "chosen because: weight 9; score 99.1%\n" in told.out and "98.2% / 97.0%" in told.out
    found = lumen("logs", "--request", ID, "--json").json
    assert (found["line"]["score"], found["attempts"][1]["score"], found["attempts"][1]["bar"]) == (
        0.991,
        0.98234,
        0.97,
    )
    assert [row["queue_us"] for row in found["attempts"]] == [None, 5_250]
    assert found["line"]["splices"] == ["prefill"] and found["line"]["reason"] == "weight 9"
    assert [(row["target"], row["ended_us"], row["cost"]) for row in found["attempts"]] == [
        ("a/x", 400_000, 30),
        ("b/y", 1_000_000, 40),
    ]


def test_lines_for_people_are_found_too_and_a_log_that_was_put_aside(lumen: Callable[..., Ran], home: Paths) -> None:
    written(home, pretty=True)
    home.gateway_log.replace(home.gateway_log.with_name("gateway.log.1"))
    told = lumen("logs", "--request", ID)
    assert told.code == 0 and "fast → b/y ok" in told.out and "prefill at token 4" in told.out


def test_what_is_unknown_or_no_id_is_one_clear_line(lumen: Callable[..., Ran], home: Paths) -> None:
    assert "nothing is known" in lumen("logs", "--request", ID).err
    assert "no id" in lumen("logs", "--request", "../../etc").err


class Wider(Settled):
    """What becomes known of a request besides."""

    prompt: str = "CANARY"


def test_a_line_holds_what_is_listed_and_nothing_else() -> None:
    lines: list[str] = []
    known = settled()
    wider = Wider(**{name: getattr(known, name) for name in Settled.__struct_fields__})
    for pretty in (False, True):
        asyncio.run(_one(AccessLog(lines.append, pretty=pretty), wider))
    assert set(json.loads(lines[0])) == {
        "time", "event", "id", "op", "route", "target", "key", "outcome", "stream", "attempts", "splices",
        "prompt_tokens", "completion_tokens", "ttft_ms", "ms", "cost", "reason", "score", "bar",
    }  # fmt: skip
    assert "CANARY" not in "".join(lines) and len(lines) == 2


async def _one(log: AccessLog, over: Settled) -> None:
    log.take([over])
    log.flush()
