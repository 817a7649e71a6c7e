from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Config, Route, Target
from lumen.config.schema import Payloads as Wanted
from lumen.core.trace import MAX_PARTS, Trace
from lumen.gateway import payloads
from lumen.gateway.attempt import Record
from lumen.gateway.payloads import Payloads, folder_of, tidy
from lumen.gateway.retention import Retention
from lumen.gateway.settled import Settled
from lumen.keys import Key, mint
from lumen.wire.call import Call, chat_call
from lumen.wire.parse import parse_chat
from tests.gateway.conftest import Up

AT = 1_800_000_000.0
DAY = "2027-01-15.jsonl"


def config(**wanted: Any) -> Config:
    return Config(routes={"r/x": Route((Target("m"),), payloads=Wanted(**wanted)), "other": Route((Target("m"),))})


def call(text: str) -> Call:
    body = {"model": "r/x", "messages": [{"role": "user", "content": text}], "user": "joe"}
    return chat_call(parse_chat(json.dumps(body).encode()))


def settled(number: int) -> Settled:
    return Settled(f"req_{number}", "chat", "r/x", "key-1", AT, 1.0, 2.0, "ok", False, [Record("m", "", 1.0)])


def keep(kept: Payloads, number: int = 0, text: str = "hi", *, key: Key | None = None, route: str = "r/x") -> None:
    kept.take(settled(number), route, key, call(text), Trace(1), b'{"choices": [{"message": {"content": "bees"}}]}')


def lines(folder: Path) -> list[dict[str, Any]]:
    file = folder_of(folder, "r/x") / DAY
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Payloads]]:
    all_: list[Payloads] = []

    def make(told: Callable[[str], None] = lambda text: None, **wanted: Any) -> Payloads:
        found = Payloads(tmp_path / "p", random.Random(1).random, told)
        found.configure(config(**wanted), Retention(config(**wanted)))
        all_.append(found)
        return found

    yield make
    for one in all_:
        one.close()


def test_a_request_is_kept_for_its_user_alone_without_what_is_redacted(
    made: Callable[..., Payloads], tmp_path: Path
) -> None:
    kept = made(redact=("$.user", "$.choices[*].message.content", "/4[0-9]{15}/"))
    keep(kept, text="card 4111111111111111, please")
    kept.close()
    (line,) = lines(tmp_path / "p")
    assert line["asked"]["messages"][0]["content"] == "card [redacted], please"
    assert (
        line["asked"]["user"] == "[redacted]" and line["answered"]["choices"][0]["message"]["content"] == "[redacted]"
    )
    assert (line["request"], line["key"], line["route"], line["outcome"]) == ("req_0", "key-1", "r/x", "ok")
    file = folder_of(tmp_path / "p", "r/x") / DAY
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert file.parent.parent == tmp_path / "p", "a route's name leads nowhere else"


def test_only_what_may_and_should_be_kept_is(made: Callable[..., Payloads], tmp_path: Path) -> None:
    kept, private = made(share=0.25), mint("p", retains=False)[0]
    keep(kept, key=private)
    keep(kept, route="other")
    for i in range(400):
        keep(kept, i)
    kept.close()
    assert 60 < len(lines(tmp_path / "p")) < 140
    assert not folder_of(tmp_path / "p", "other").exists()


def test_what_comes_faster_than_it_can_be_written_is_dropped_and_told_once(
    made: Callable[..., Payloads], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    go, done = threading.Event(), threading.Event()
    write = Payloads._write
    monkeypatch.setattr(Payloads, "_write", lambda self, batch: (go.wait(100), done.set(), write(self, batch)))
    monkeypatch.setattr(payloads, "_MOST", 10)
    kept = made(told.append)
    for i in range(50):
        keep(kept, i)
    assert not done.is_set(), "nobody waits for the disk"
    assert kept.dropped == 40 and len(told) == 1
    go.set()
    kept.close()
    assert [line["request"] for line in lines(tmp_path / "p")] == [f"req_{i}" for i in range(10)]
    monkeypatch.setattr(payloads, "_MOST", 1000)
    monkeypatch.setattr(payloads, "_MOST_BYTES", 20_000)
    large = made(told.append)
    for i in range(5):
        keep(large, i, "x" * 9000)
    assert large.dropped >= 2


def test_a_disk_that_cannot_be_written_is_told_of_and_requests_go_on(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "p").write_text("a file where a folder should be")
    kept = Payloads(tmp_path / "p", random.random, told.append)
    kept.configure(config(), Retention(config()))
    for i in range(3):
        keep(kept, i)
    kept.close()
    assert kept.dropped == 3 and len(told) == 1 and "cannot be written" in told[0]


def test_files_go_when_their_route_keeps_them_no_longer(made: Callable[..., Payloads], tmp_path: Path) -> None:
    kept = made(days=7)
    keep(kept)
    kept.close()
    folder = folder_of(tmp_path / "p", "r/x")
    for day in ("2027-01-01", "2027-01-07", "2027-01-08"):
        (folder / f"{day}.jsonl").write_text("{}\n")
    tidy(tmp_path / "p", date(2027, 1, 15))
    assert sorted(file.name for file in folder.glob("*.jsonl")) == ["2027-01-08.jsonl", DAY]


@pytest.mark.anyio
async def test_streams_are_put_together_and_errors_and_cancelled_ones_are_kept_too(up: Up, tmp_path: Path) -> None:
    kept = Payloads(tmp_path / "p", random.random, lambda text: None)
    name = next(iter(up.state.table.entries())).account
    wanted = Config(routes={name: Route((Target("m"),), payloads=Wanted())})
    kept.configure(wanted, Retention(wanted))
    up.state.payloads = kept
    try:
        messages = [{"role": "user", "content": "hello"}]
        status, _, _ = await up.stream({"model": name, "messages": messages})
        assert status == 200
        await up.post("/v1/chat/completions", {"model": name, "messages": messages})
    finally:
        await asyncio.to_thread(kept.close)
    files = folder_of(tmp_path / "p", name).glob("*.jsonl")
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(found) == 2
    for line in found:
        assert line["asked"]["messages"] == messages
        assert line["answered"]["choices"][0]["message"]["content"]


def fragments(*texts: str) -> Trace:
    """A sampled stream that calls a tool, its arguments in pieces."""
    trace = Trace(1, keep=True)
    for text in texts:
        call = {"index": 0, "function": {"arguments": text}}
        trace.add(
            True, (), None, None, actionable=True,
            data=json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).encode(),
        )  # fmt: skip
    return trace


def test_what_is_redacted_does_not_hide_between_two_pieces_of_a_stream(
    made: Callable[..., Payloads], tmp_path: Path
) -> None:
    kept = made(redact=("/4[0-9]{15}/",))
    kept.take(settled(0), "r/x", None, call("pay"), fragments('{"card": "41111111', '11111111"}'), b"")
    kept.take(settled(1), "r/x", None, call("long"), fragments("x" * (MAX_PARTS + 1)), b"")
    kept.close()
    first, second = lines(tmp_path / "p")
    (told,) = first["answered"]["choices"][0]["message"]["tool_calls"]
    assert told["function"]["arguments"] == '{"card": "[redacted]"}' and "cut" not in first
    assert second["cut"] is True and second["answered"] is None


@pytest.mark.anyio
@pytest.mark.parametrize("retained", [True, False])
async def test_calls_of_tools_of_a_sampled_stream_are_kept_where_the_route_keeps(
    up: Up, tmp_path: Path, retained: bool
) -> None:
    kept = Payloads(tmp_path / "p", random.random, lambda text: None)
    name = "fake/tool-words-3"
    wanted = Config(routes={name: Route((Target("m"),), payloads=Wanted())}, retention="usual" if retained else "none")
    up.state.retention = Retention(wanted)
    kept.configure(wanted, up.state.retention)
    up.state.payloads = kept
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    try:
        body = {"model": name, "messages": [{"role": "user", "content": "x"}], "tools": [tool], "temperature": 0.7}
        status, _, _ = await up.stream(body)
        assert status == 200
    finally:
        await asyncio.to_thread(kept.close)
    files = [*folder_of(tmp_path / "p", name).glob("*.jsonl")]
    assert bool(files) is retained
    for line in (json.loads(line) for file in files for line in file.read_text().splitlines()):
        (told,) = line["answered"]["choices"][0]["message"]["tool_calls"]
        assert told["id"] and told["function"]["name"] == "look" and json.loads(told["function"]["arguments"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
