"""`lumen provider test`: what a vendor accepts, can do and costs, found by asking it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from aiohttp import web

from lumen.config.edit import edit, put
from lumen.config.load import load
from lumen.origins import unlock
from lumen.paths import Paths
from lumen.providers.base import Capabilities
from tests.cli.harness import Ran
from tests.cli.vendor_server import KEY, Vendor, serving
from tests.emulator.server import Emulator

Lumen = Callable[..., Ran]
pytestmark = pytest.mark.usefixtures("alone")


# -- test --------------------------------------------------------------------------------------------------------------


def test_a_right_key_is_accepted(lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    ran = lumen("provider", "test", "acme")
    assert ran.code == 0 and "key       accepted" in ran.out and "models    2 listed" in ran.out
    assert [(method, path) for method, path, _, _ in acme.seen] == [("GET", "models")], "one call, which costs nothing"
    found = lumen("provider", "test", "acme", "--model", "small", "--json").json
    assert found["ok"] and found["answered_ms"] >= 0 and found["model"] == "small"
    assert KEY not in json.dumps(found)


def test_a_wrong_key_is_told_without_showing_it(lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "sk-wrong-key")
    ran = lumen("provider", "test", "acme")
    assert ran.code == 1
    assert ran.err == "lumen: acme refuses the key (401); give another with `lumen provider add acme`\n"
    assert "sk-wrong" not in ran.out + ran.err and "key       refused" in ran.out
    monkeypatch.delenv("ACME_KEY")
    ran = lumen("provider", "test", "acme")
    assert ran.code == 1 and "takes its key from $ACME_KEY, which is not set; set it, or give" in ran.err


def test_a_kept_key_is_sent_to_its_origin_alone(lumen: Lumen, typed: Callable[[str], None], home: Paths) -> None:
    with serving(Vendor()) as right, serving(Vendor(key=None)) as other:
        typed(KEY)
        right_url, other_url = right.url, other.url
        assert lumen("provider", "add", "acme", "--preset", "groq", "--base-url", right_url).code == 0
        assert lumen("provider", "test", "acme").code == 0
        home.config_file.write_text(home.config_file.read_text().replace(right_url, other_url))
        ran = lumen("provider", "test", "acme")
        assert ran.code == 1 and "goes nowhere else; give it with `lumen provider add acme`" in ran.err
        assert other.seen == []


def test_a_vendor_without_a_list_is_asked_a_word(lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    acme.models = None
    ran = lumen("provider", "test", "acme")
    assert ran.code == 1 and "it is not known which model to ask; name one with --model" in ran.err
    lumen("route", "set", "fast", "--target", "acme/tiny")
    ran = lumen("provider", "test", "acme")
    assert ran.code == 0 and "ms, by tiny" in ran.out
    assert acme.seen[-1][2]["max_tokens"] == 16


def test_a_public_list_proves_no_key(lumen: Lumen, typed: Callable[[str], None]) -> None:
    with serving(Vendor(public_list=True)) as vendor:
        typed("sk-wrong")
        lumen("provider", "add", "acme", "--preset", "openrouter", "--base-url", vendor.url)
        found = lumen("provider", "test", "acme", "--json")
        assert found.code == 0 and found.json["key"] == "unchecked" and found.json["models"] == 2
        ran = lumen("provider", "test", "acme", "--model", "small")
        assert ran.code == 1 and "refuses the key" in ran.err


@pytest.mark.parametrize("prefill", ["none", "native", "prefix", "continue"])
def test_probing_tells_what_differs(
    lumen: Lumen, acme: Vendor, prefill: str, monkeypatch: pytest.MonkeyPatch, home: Paths
) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    acme.prefill, acme.logprobs, acme.n, acme.stream_usage = prefill, False, False, False
    acme.refuses = frozenset({"seed"})
    acme.json_schema = prefill != "native"
    acme.echo, acme.tools = prefill == "prefix", False
    found = lumen("provider", "test", "acme", "--model", "small", "--probe", "--json").json
    assert found["ok"]
    echo = {} if prefill == "none" else {"prefill_echo": prefill == "prefix"}
    assert found["probed"] == {"prefill": prefill, **echo, "seed": False, "logprobs": False, "n": False,
                               "stream_usage": False, "json_schema": prefill != "native", "tools": False,
                               "token_ids": False}  # fmt: skip
    begun = {"none": "starts over", "prefix": "repeated"}
    assert found["begun"] == begun.get(prefill, "continued")
    assert found["differs"]["seed"] == [True, False] and ("prefill" in found["differs"]) == (prefill != "none")
    ran = lumen("provider", "test", "acme", "--model", "small", "--probe")
    assert "seed          no  (declared: true)" in ran.out
    assert "What was found out counts from now on: takes effect with the next `lumen up`." in ran.err


def test_what_was_found_out_counts_more_than_what_is_declared_until_something_else_is_said(
    lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch, home: Paths
) -> None:
    def planned(url: str) -> Capabilities:
        """What a gateway plans with, for a provider at this address."""
        made = load(home.config_file)
        provider = replace(made.providers["acme"], base_url=url)
        return unlock(replace(made, providers={"acme": provider}))["acme"].vendor.can("small")

    monkeypatch.setenv("ACME_KEY", KEY)
    acme.prefill, acme.echo, acme.seed, acme.token_ids = "continue", True, False, True
    assert (planned(acme.url).prefill, planned(acme.url).seed) == ("none", True)
    assert lumen("provider", "test", "acme", "--model", "small", "--probe").code == 0
    found = planned(acme.url)
    assert (found.prefill, found.prefill_echo, found.seed, found.token_ids) == ("continue", True, False, True)
    assert planned(acme.url + "/elsewhere").prefill == "none", "it was asked at one address"
    assert load(home.config_file).providers["acme"].capabilities.prefill is None, "what is declared stays as it is"
    assert (
        "found     small: token_ids, prefill=continue, prefill_echo, no seed" in lumen("provider", "show", "acme").out
    )
    acme.prefill = "none"
    lumen("provider", "test", "acme", "--model", "small", "--probe")
    assert planned(acme.url).prefill == "none"
    home.probed_file.write_text('{"acme": {"base_url": 3}, "other": [')
    assert planned(acme.url).seed, "a file that cannot be read is none"
    lumen("provider", "test", "acme", "--model", "small", "--probe")
    assert not planned(acme.url).seed
    assert lumen("provider", "add", "acme", "--can", "seed=true").code == 0
    assert planned(acme.url).seed


def test_a_server_that_only_tells_its_tokens_cannot_go_on_from_them(
    lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    found = lumen("provider", "test", "acme", "--model", "small", "--probe", "--json").json
    assert any(body.get("resume_token_ids") == [11, 12] for _, _, body, _ in acme.seen)
    assert found["probed"]["token_ids"] is False


def test_what_probing_may_cost_is_told_and_kept(
    lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch, home: Paths
) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    ran = lumen("provider", "test", "acme", "--model", "small", "--probe", "--max-cost", "1usd")
    assert ran.code == 1 and "nobody says what acme/small costs" in ran.err
    ran = lumen("provider", "test", "acme", "--model", "small", "--probe")
    assert ran.code == 0 and "at a price that is not known" in ran.err
    edit(home.config_file, lambda text: put(text, ("providers", "acme", "models", "small"),
                                            {"price": {"input": "2/1M", "output": "8/1M"}}))  # fmt: skip
    acme.seen.clear()
    ran = lumen("provider", "test", "acme", "--model", "small", "--probe", "--max-cost", "0.0001usd")
    assert ran.code == 1 and "more than $0.000100; allow it with --max-cost" in ran.err
    asked = [body for method, _, body, _ in acme.seen if method == "POST"]
    assert asked == [], "nothing was asked"
    ran = lumen("provider", "test", "acme", "--model", "small", "--probe")
    (told,) = re.findall(
        r"asks acme/small (\d+) times at most, ([\d,]+) tokens in and ([\d,]+) out: \$([\d.]+)", ran.err
    )
    most = [int(part.replace(",", "")) for part in told[:3]]
    assert most[1] * 2 + most[2] * 8 == round(float(told[3]) * 10**6)
    asked = [body for method, _, body, _ in acme.seen if method == "POST"]
    assert len(asked) <= most[0]
    assert sum(body["max_tokens"] * (body.get("n") or 1) for body in asked) <= most[2]
    assert sum(len(json.dumps(body)) / 4 for body in asked) <= most[1]


def test_a_vendor_as_declared_differs_in_nothing(lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    found = lumen("provider", "test", "acme", "--model", "small", "--probe", "--json").json
    assert found["differs"] == {} and found["probed"]["seed"] is True
    assert len(acme.seen) <= 14, "few and tiny"
    assert all(body.get("max_tokens", 16) <= 256 for _, _, body, _ in acme.seen)


@pytest.mark.parametrize(
    ("path", "answer", "says"),
    [
        ("models", (200, "text/html", b"<html>"), "list of models is not JSON; is the base_url right?"),
        ("models", (500, "text/plain", b"oops"), "does not answer as it should (500)"),
        ("models", (302, "text/plain", b""), "does not answer as it should (302)"),
        ("models", (429, "application/json", b'{"error":{"message":"slow down"}}'), "over its rate limit: slow down"),
        ("models", (200, "application/json", b"[" * 100_000), "is not JSON"),
        ("chat/completions", (200, "text/html", b"<html>"), "does not answer as it should"),
        ("chat/completions", (200, "application/json", b"{}"), "does not answer as it should"),
        ("chat/completions", (404, "application/json", b"{}"), "has no model 'small', or its base_url is wrong"),
    ],
)
def test_a_vendor_that_answers_nonsense(
    lumen: Lumen, acme: Vendor, monkeypatch: pytest.MonkeyPatch, path: str, answer: tuple[int, str, bytes], says: str
) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    acme.raw[path] = answer
    ran = lumen("provider", "test", "acme", "--model", "small")
    assert ran.code == 1 and says in ran.err and ran.err.count("\n") == 1
    assert KEY not in ran.out + ran.err


def test_a_vendor_that_cannot_be_reached(lumen: Lumen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        lumen("provider", "add", "acme", "--base-url", url)
        ran = lumen("provider", "test", "acme", "--timeout", "0.2")
        assert ran.code == 1 and "said nothing for 0.2 s; try again, or give --timeout" in ran.err
    ran = lumen("provider", "test", "acme")
    assert ran.code == 1 and "127.0.0.1 cannot be reached: Connection refused; check its base_url" in ran.err


@pytest.fixture
def emulated(lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The emulated provider of the gateway's own tests, configured as `emu`."""
    emulator, loop, up = Emulator(), asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []
    runner = web.AppRunner(emulator.app(), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        up.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert up.wait(100)
    monkeypatch.setenv("EMU_KEY", KEY)
    assert (
        lumen("provider", "add", "emu", "--base-url", f"http://127.0.0.1:{ports[0]}/v1", "--key", "env:EMU_KEY").code
        == 0
    )
    yield emulator
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("words-3", None),
        ("status-401", "emu refuses the key (401)"),
        ("status-503", "does not answer as it should (503)"),
        ("limit", "over its rate limit"),
        ("html", "does not answer as it should"),
        ("reset", "closed the connection without an answer"),
    ],
)
def test_what_the_emulated_provider_does(lumen: Lumen, emulated: Emulator, model: str, says: str | None) -> None:
    ran = lumen("provider", "test", "emu", "--model", model)
    assert (ran.code, ran.err.count("\n")) == ((0, 0) if says is None else (1, 1))
    assert says is None or says in ran.err
    assert KEY not in ran.out + ran.err
    assert emulated.headers[-1]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize(
    ("model", "way", "begun"),
    [("prefill-sentence", "native", "continued"), ("echo-sentence", "native", "repeated"),
     ("noprefill-sentence", "none", "refused"), ("sentence", "none", "starts over")],
)  # fmt: skip
def test_what_an_emulated_model_does_with_an_answer_that_is_begun(
    lumen: Lumen, emulated: Emulator, home: Paths, dialect: str, model: str, way: str, begun: str
) -> None:
    url = load(home.config_file).providers["emu"].base_url or ""
    at = url + "beta" if dialect == "gemini" else url
    lumen("provider", "add", "emu", "--base-url", at, "--dialect", dialect, "--key", "env:EMU_KEY")
    found = lumen("provider", "test", "emu", "--model", model, "--probe", "--json").json
    assert (found["probed"]["prefill"], found["begun"]) == (way, begun)
    if way == "native":
        assert found["probed"]["prefill_echo"] is (begun == "repeated")
    others = {name: found["probed"][name] for name in ("logprobs", "json_schema", "tools", "token_ids", "stream_usage")}
    assert others == {**dict.fromkeys(others, False), "stream_usage": True}
    assert found["probed"]["n"] is (dialect != "anthropic") and found["probed"]["seed"] is (dialect != "anthropic")
