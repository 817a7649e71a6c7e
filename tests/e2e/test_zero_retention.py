"""`retention: none`: canary strings go through everything there is, and then are looked for in every file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import threading
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.shapes import write_adapter
from lumen import tiny
from tests.e2e.conftest import Box, until
from tests.e2e.private import SPANS, OwnBox, Place, dressed, echoing

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-retention"), pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
CONFIG = """
{retention}
{traces}
logging: {{level: debug, format: {format}}}
responses: {{store: true, days: 3}}
models:
  lumen-tiny:
    source: builtin:tiny
    draft: builtin:tiny-draft
    adapters: {{sql: sql.gguf}}
    options: {{kv_disk: 64MiB}}
  loud:
    source: builtin:tiny
    engine: command
    options: {{command: "{python} -m tests.e2e.private {{port}}", env: {{PYTHONPATH: "{root}"}}, grace: 1}}
providers:
  echo:
    base_url: http://127.0.0.1:{port}/v1
    dialect: openai
    capabilities: {{rerank: true, moderations: true, image_generation: true, transcription: true, speech: true}}
    models: {{"*": {{price: {{input: 1, output: 2}}}}}}
routes:
  mended: {{policy: ordered, targets: [echo/cut, echo/plain], {route}}}
  failing: {{policy: ordered, targets: [echo/err500, echo/html, echo/plain], {route}}}
  plain: {{targets: [echo/plain], {route}{payloads}}}
  bad: {{targets: [echo/err400], {route}}}
  broken: {{targets: [echo/errin], {route}}}
  tool: {{targets: [echo/tool], {route}}}
  slow: {{targets: [echo/slow], {route}}}
  tiny: {{targets: [lumen-tiny], {route}}}
  worn: {{targets: ["lumen-tiny:sql"], {route}}}
  hedged: {{policy: ordered, hedge: p95, targets: [echo/plain, echo/other], {route}}}
  vectors: {{targets: [echo/vectors], {route}}}
  noisy: {{targets: [loud], {route}}}
"""


@pytest.fixture
def upstream() -> Iterator[int]:
    with echoing() as port:
        yield port


def started(home: Path, port: int, of: str) -> Place:
    box = OwnBox(home)
    (home / "config").mkdir(parents=True)
    write_adapter(home / "config" / "sql.gguf", tiny.MODEL, seed=1)
    traces = f"traces: {{endpoint: 'http://127.0.0.1:{port}/v1/traces', payloads: true}}"
    text = CONFIG.format(
        port=port,
        retention="retention: none" if of == "box" else "",
        traces=traces if find_spec("opentelemetry") else "",
        route="retention: none" if of == "route" else "retention: usual",
        # Where a route says otherwise, the box and the key win.
        payloads="" if of == "route" else ", payloads: {days: 3}",
        format="json" if of == "box" else "pretty",
        python=sys.executable,
        root=ROOT,
    )
    (home / "config" / "config.yaml").write_text(text)
    added = (
        json.loads(box.lumen("key", "add", "private", "--no-retention", "--json").stdout)["key"] if of == "key" else ""
    )
    box.up()
    return Place(box, added or box.key, box.url)


def chat(model: str, canary: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"say {canary}"}], "max_tokens": 20, **more}


def everything(place: Place) -> None:
    """Traffic through every feature there is, each with a canary of its own."""
    post, canary = place.post, place.canary
    for stream in (False, True):
        for model in ("plain", "tiny", "mended", "failing", "noisy"):
            assert post("/v1/chat/completions", chat(model, canary(), stream=stream)) == 200
        assert post("/v1/messages", {**chat("plain", canary(), stream=stream), "system": canary()}) == 200
        asked = {"model": "plain", "input": canary(), "instructions": canary(), "stream": stream}
        assert post("/v1/responses", asked) == 200
        assert post("/v1/completions", {"model": "tiny", "prompt": canary(), "max_tokens": 8, "stream": stream}) == 200
        tool = {"type": "function", "function": {"name": "look", "description": canary(), "parameters": {}}}
        assert post("/v1/chat/completions", chat("tool", canary(), stream=stream, tools=[tool], user=canary())) == 200
        assert post("/v1/chat/completions", chat("bad", canary(), stream=stream)) == 400
    assert post("/v1/chat/completions", chat("broken", canary(), stream=True)) in (200, 502)
    assert post("/v1/embeddings", {"model": "vectors", "input": canary()}) == 200
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": canary()}}}
    post("/v1/chat/completions", chat("tiny", canary(), response_format=form))
    # What cannot be: no such route, no JSON, a wrong field, a wrong path, what is too long for the model.
    assert post("/v1/chat/completions", chat(canary(), canary())) == 404
    assert post("/v1/chat/completions", None, raw=b'{"model": "plain", "messages": [' + canary().encode()) == 400
    assert post("/v1/chat/completions", chat("plain", canary(), temperature=canary())) == 400
    assert post(f"/v1/{canary()}", {}) == 404
    post("/v1/chat/completions", chat("tiny", f"{canary()} " * 3000))
    assert post("/v1/chat/completions", chat("plain", f"{canary()} " * 20_000)) == 200
    others(place)
    # Clients that leave.
    post("/v1/chat/completions", chat("slow", canary(), stream=True), leave=300)
    post("/v1/chat/completions", chat("tiny", canary(), stream=True, max_tokens=300), leave=100)
    crash(place)


def others(place: Place) -> None:
    """What came later: adapters and a draft model, kept responses, what is no text, tokens, steering by headers."""
    post, canary = place.post, place.canary
    for stream in (False, True):
        # A text that repeats itself is guessed ahead, by what stands there and by the draft model.
        assert post("/v1/chat/completions", chat("worn", f"{canary()} " * 3, stream=stream, temperature=0)) == 200
        repeated = {"model": "tiny", "prompt": f"{canary()} " * 4, "max_tokens": 24, "temperature": 0, "stream": stream}
        assert post("/v1/completions", repeated) == 200
        asked = {"model": "plain", "input": canary(), "store": True, "stream": stream, "metadata": {"a": canary()}}
        assert post("/v1/responses", asked) == 200
        assert post("/v1/chat/completions", chat("hedged", canary(), stream=stream)) == 200
    assert post("/v1/responses", {"model": "plain", "input": canary(), "previous_response_id": canary()}) in (400, 404)
    assert post("/v1/messages/count_tokens", chat("tiny", canary())) == 200
    assert post("/tokenize", {"model": "tiny", "prompt": canary()}) == 200
    assert post("/v1/rerank", {"model": "plain", "query": canary(), "documents": [canary()]}) == 200
    assert post("/v1/moderations", {"model": "plain", "input": canary()}) == 200
    assert post("/v1/images/generations", {"model": "plain", "prompt": canary()}) == 200
    assert post("/v1/audio/speech", {"model": "plain", "input": canary(), "voice": "alloy"}) == 200
    assert post("/v1/audio/transcriptions", None, raw=form(canary(), canary(), canary()), kind=FORM) == 200


FORM = "multipart/form-data; boundary=----b"


def form(prompt: str, filename: str, content: str) -> bytes:
    # Longer than what anybody would hold in memory without thinking.
    audio = f"{content} ".encode() * 20_000
    parts = [("model", None, b"plain"), ("prompt", None, prompt.encode()), ("file", f"{filename}.wav", audio)]
    body = b""
    for name, file, data in parts:
        more = f'; filename="{file}"' if file else ""
        body += f'------b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"------b--\r\n"


def crash(place: Place) -> None:
    """An engine that dies with a prompt in its memory, as one that dumps its core does."""
    (worker,) = (process.pid for process in place.box.engines())
    asking = threading.Thread(
        target=lambda: place.post("/v1/chat/completions", chat("tiny", place.canary(), stream=True, max_tokens=400))
    )
    asking.start()
    os.kill(worker, signal.SIGABRT)
    asking.join()
    until(lambda: place.box.status()["ready"] and worker not in place.box.workers(), "another worker")


@pytest.mark.parametrize("of", ["box", "route", "key"])
def test_nothing_that_was_said_is_anywhere(tmp_path: Path, upstream: int, of: str) -> None:
    place = started(tmp_path / "box", upstream, of)
    box = place.box
    try:
        for process in box.ours():
            if "-m lumen" in " ".join(process.cmdline()):
                assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        # The other target's answers are canaries too, and would be kept where that is allowed.
        box.lumen("shadow", "start", "plain", "--candidate", "echo/other", "--share", "100%", "--texts")
        box.lumen("canary", "start", "hedged", "--candidate", "echo/other")
        everything(place)
        for request, _ in place.seen[:3]:
            place.post("/v1/feedback", {"request_id": request, "score": 1.0, "comment": place.canary()})
        told = [place_metrics(place), *(box.lumen(*what, check=False).stdout for what in SHOWN)]
        assert not [canary for canary in place.canaries for text in told if canary in text]
        # While everything is open, the write-ahead log and the mapped journal included; and once more when all is over.
        assert place.found() == []
        rest(place)
        # What is passed on does not hang on who said that nothing may be kept.
        handed_over(place) if of == "box" else box.lumen("restart")
        assert place.found() == []
        box.lumen("down")
        assert place.found() == []
        exact(place)
        assert bool(SPANS) is bool(find_spec("opentelemetry"))
        assert not [found for spans in SPANS for found in place.inside(spans)]
    finally:
        box.end()


def rest(place: Place) -> None:
    """A model that sleeps, with what it computed, and one that wakes; and what is taken out of a box, as archives."""
    box = place.box
    box.lumen("sleep", "lumen-tiny")
    assert place.found() == []
    assert place.post("/v1/chat/completions", chat("tiny", place.canary())) == 200
    box.lumen("backup", str(box.home / "backup.tar.gz"))
    box.lumen("doctor", "--bundle", str(box.home / "bundle.tar.gz"), check=False)
    assert (box.home / "bundle.tar.gz").exists()
    assert place.found() == []


def handed_over(place: Place) -> None:
    """Answers under way while one gateway follows another, what they are passed on in, and a gateway that is killed."""
    box = place.box
    before = box.status()["pid"]
    said = chat("slow", place.canary(), stream=True), chat("tiny", place.canary(), stream=True, max_tokens=400)
    asking = [threading.Thread(target=place.post, args=("/v1/chat/completions", body)) for body in said]
    for one in asking:
        one.start()
    until(lambda: box.status()["requests"]["in_flight"] >= 1, "the answers")
    box.lumen("restart")
    assert place.found() == []
    for one in asking:
        one.join()
    assert place.found() == []
    pid = box.status()["pid"]
    assert pid != before
    dying = threading.Thread(
        target=lambda: place.post("/v1/chat/completions", chat("slow", place.canary(), stream=True))
    )
    seen = len(place.seen)
    dying.start()
    until(lambda: len(place.seen) > seen, "the answer's beginning")
    os.kill(pid, signal.SIGKILL)
    dying.join()
    assert place.found() == []
    # The first one may not be quite over yet.
    until(lambda: box.lumen("up", "--detach", "--port", "0", check=False).returncode == 0, "another gateway")
    assert place.found() == []


SHOWN = (
    ("shadow", "report", "plain", "--json"),
    ("status", "--json"),
    ("top", "--once", "--json"),
    ("logs", "-n", "100000"),
    ("target", "ls", "--json"),
)


def place_metrics(place: Place) -> str:
    asked = urllib.request.Request(
        place.url.removesuffix("/v1") + "/metrics", headers={"Authorization": f"Bearer {place.box.key}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def exact(place: Place) -> None:
    """Every request that reached a target is in the ledger, with its counts and its cost."""
    with contextlib.closing(sqlite3.connect(place.box.home / "state" / "ledger.db")) as ledger:
        rows = ledger.execute("SELECT request, outcome, input, output, cost, operation, model FROM attempts").fetchall()
    ok = {row[0]: row for row in rows if (row[1], row[5], row[6]) == ("ok", "chat/completions", "plain")}
    assert len(ok) >= 8
    assert all(row[4] == row[2] * 1_000_000 + row[3] * 2_000_000 and row[2] >= 7 for row in ok.values())
    assert {row[0] for row in rows} <= {request for request, _ in place.seen}


def test_without_it_what_routes_keep_is_found(tmp_path: Path, upstream: int) -> None:
    """The same route and the same search: only the setting differs."""
    place = started(tmp_path / "box", upstream, "nothing")
    try:
        for route in ("plain", "noisy"):
            assert place.post("/v1/chat/completions", chat(route, place.canary())) == 200
        # Files that are open are found by their descriptors, too.
        kept = ("payloads/", "loud-0.log", "/proc/")
        found = until(
            lambda: all(any(one in bad for bad in place.found()) for one in kept[:2]) and place.found(), "files with it"
        )
        assert all(any(one in bad for one in kept) for bad in found)
    finally:
        place.box.end()


def test_the_search_would_find_what_is_kept(tmp_path: Path) -> None:
    """The test above proves something only if what was written down would be found."""
    place = Place(Box(tmp_path), "", "")
    for i, clothed in enumerate(dressed(place.canary())):
        file = tmp_path / f"{i}.db"
        file.write_bytes(b"abc" + clothed + b"def")
        assert len(place.found()) >= 1
        file.unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "l.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        database.execute("INSERT INTO t VALUES (?)", (f"said {place.canaries[0]}",))
        database.commit()
        assert any("l.db" in bad for bad in place.found())
