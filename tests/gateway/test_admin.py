"""Which role each admin call needs, and what becomes of a call that is refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp.web import BaseRequest, ServerRunner, StreamResponse, TCPSite
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.errors import LumenError, RequestError
from lumen.core.roles import ROLES, Role, covers, greatest
from lumen.gateway import admin, books, rollouts
from lumen.gateway.auth import authenticate
from lumen.gateway.http import Ingress
from lumen.gateway.reply import error_reply
from lumen.keys import KeyRing, load, mint, save

pytestmark = pytest.mark.anyio
STEERING = {"cancel", "targets", "restart", "sleep", "wake"}
# What is read there may hold what was asked.
GUARDED = {"logs"}
# Those that the operator itself answers in one step.
_OTHERS = {row[1] for row in (*rollouts.CALLS, *books.CALLS)}
OWN = [call for call in admin.CALLS if call.path not in _OTHERS and call.path != admin.EVENTS]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Asked:
    """An operator that writes down what it was asked for."""

    done: list[tuple[Any, ...]] = field(default_factory=list)
    noted: list[tuple[str, tuple[str, ...], str, dict[str, str]]] = field(default_factory=list)
    frames: int = 0

    async def note(self, action: str, *given: str, who: str, **details: str) -> None:
        self.noted.append((action, given, who, details))

    def frame(self, number: int) -> dict[str, Any]:
        self.frames += 1
        return {"number": number + 1}

    def __getattr__(self, name: str) -> Any:
        if name == "learning":
            return self

        def do(*given: str) -> dict[str, Any]:
            self.done.append((name, *given))
            return {"did": name, "changed": ["routes.fast", "server"]}

        return do


@dataclass
class Door:
    operator: Asked
    url: str
    session: aiohttp.ClientSession
    caller: admin.Caller | None = None
    refusals: admin.Refusals = field(default_factory=lambda: admin.Refusals(lambda: 1000.0))

    async def admit(self, request: BaseRequest) -> admin.Caller:
        if self.caller is None:
            raise RequestError("Who are you?", status=401)
        return self.caller

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.session.request(method, self.url + path, json=body) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def door(anyio_backend: str) -> AsyncIterator[Door]:
    operator = Asked()
    async with aiohttp.ClientSession() as session:
        made = Door(operator, "", session)

        async def handle(request: BaseRequest) -> StreamResponse:
            try:
                return await admin.serve(operator, request, made.admit, made.refusals)
            except LumenError as error:
                return error_reply(error, {})

        runner = ServerRunner(Ingress(handle, header_timeout=30, idle_timeout=30), shutdown_timeout=0.1)
        await runner.setup()
        await TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    await runner.cleanup()


def test_roles_hold_what_the_lesser_ones_hold() -> None:
    assert [covers("operator", needed) for needed in ROLES] == [True, True, False]
    assert [covers(held, "operator") for held in ROLES] == [False, True, True]


@given(st.sets(st.sampled_from(ROLES)))
def test_the_greatest_of_some_roles_covers_them_all(held: set[Role]) -> None:
    best = greatest(held)
    assert (best is None) == (not held)
    assert best is None or (best in held and all(covers(best, one) for one in held))


def test_every_call_needs_the_role_of_its_kind() -> None:
    for call in OWN:
        reads = call.method == "GET" or call.reads
        steers = call.name in (GUARDED if reads else STEERING)
        kind = "operator" if steers else "viewer" if reads else "admin"
        assert call.role == kind, call.path
    for call in admin.CALLS:
        assert call.method == "GET" or call.reads or covers(call.role, "operator"), call.path


@pytest.mark.parametrize("call", OWN, ids=lambda c: c.method + c.path)
@pytest.mark.parametrize("role", ROLES)
async def test_a_call_is_done_for_its_role(door: Door, call: admin.Call, role: Role) -> None:
    door.caller = admin.Caller("ann", role)
    path = call.path + "req_1" if call.prefix else call.path
    status, _ = await door.ask(call.method, path, {name: "x" for name in call.fields} if call.fields else None)
    if covers(role, call.role):
        assert (status, len(door.operator.done)) == (call.status, 1)
        changed = call.method != "GET" and not call.reads
        told: list[Any] = [(f"gateway.{call.name}", ("x",) * len(call.fields), "ann", {})] if changed else []
        if call.name == "reload":
            told = [("gateway.reload", (), "ann", {"changed": "routes.fast, server"})]
        elif call.name in GUARDED:
            told = [("gateway.looked", (call.name, "req_1"), "ann", {})]
        assert door.operator.noted == told
    else:
        assert (status, door.operator.done) == (403, [])


LESSER = [(call, role) for call in admin.CALLS for role in ROLES if not covers(role, call.role)]


@pytest.mark.parametrize(("call", "role"), LESSER, ids=lambda one: getattr(one, "path", one))
async def test_a_call_is_refused_below_its_role_and_that_is_on_record(door: Door, call: admin.Call, role: Role) -> None:
    door.caller = admin.Caller("ann", role, "192.0.2.1")
    path = call.path + "x/y" if call.prefix else call.path
    status, body = await door.ask(call.method, path, {name: "x" for name in call.fields})
    assert (status, body["error"]["code"]) == (403, "role_required")
    assert call.role in body["error"]["message"] and role in body["error"]["message"]
    assert door.operator.done == []
    ((action, given, who, details),) = door.operator.noted
    assert (action, given[0], who) == ("gateway.refused", call.name, "ann")
    assert details == {"needs": call.role, "has": role, "address": "192.0.2.1"}


async def test_a_refusal_that_comes_again_is_written_once_a_minute(door: Door) -> None:
    now = [0.0]
    door.refusals = admin.Refusals(lambda: now[0])
    for second in range(121):
        now[0] = float(second)
        door.caller = admin.Caller("ann", "viewer")
        assert (await door.ask("POST", "/admin/stop"))[0] == 403
    assert len(door.operator.noted) == 3
    door.caller = admin.Caller("bob", "viewer")
    await door.ask("POST", "/admin/stop")
    await door.ask("POST", "/admin/reload")
    assert len(door.operator.noted) == 5, "another caller, another call"
    many = admin.Refusals(lambda: now[0])
    assert all(many.news(f"caller {number}", "x") for number in range(5000))
    assert len(many._told) <= 1024


async def test_who_looks_at_what_others_said_is_on_record_once_a_minute(door: Door) -> None:
    now = [0.0]
    door.refusals = admin.Refusals(lambda: now[0])
    door.caller = admin.Caller("ann", "admin", "192.0.2.1")
    for second in range(61):
        now[0] = float(second)
        for path in ("logs/m/0", "shadow/fast", "status"):
            await door.ask("GET", f"/admin/{path}")
    who = ("ann", {"address": "192.0.2.1"})
    looks = [("gateway.looked", ("logs", "m/0"), *who), ("gateway.looked", ("shadow", "fast"), *who)]
    assert door.operator.noted == looks * 2


async def test_who_is_not_let_in_is_not_told_which_calls_there_are(door: Door) -> None:
    assert (await door.ask("GET", "/admin/status"))[0] == 401
    assert (await door.ask("GET", "/admin/nothing"))[0] == 401
    door.caller = admin.Caller("ann", "admin")
    assert (await door.ask("GET", "/admin/nothing"))[0] == 404
    assert (await door.ask("PUT", "/admin/status"))[0] == 404


async def test_a_stream_ends_when_its_reader_is_not_let_in_any_more(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "_FRAME", 0.001)
    door.caller = admin.Caller("ann", "viewer")
    async with asyncio.timeout(100), door.session.get(door.url + admin.EVENTS) as answer:
        assert json.loads(await answer.content.readline()) == {"number": 1}
        door.caller = None
        await answer.content.read()
    assert door.operator.frames <= 2 * admin._FRAMES_ADMITTED


def test_a_key_with_a_role_asks_no_model(tmp_path: Any) -> None:
    key, secret = mint("dashboard", role="viewer")
    plain, other = mint("app")
    save(tmp_path / "keys.json", KeyRing([key, plain]))
    ring = load(tmp_path / "keys.json")
    assert [k.role for k in ring.keys] == ["viewer", None]
    with pytest.raises(RequestError) as refused:
        authenticate(ring, f"Bearer {secret}", None, time.time())
    assert refused.value.body()["error"]["code"] == "wrong_kind_of_key" and refused.value.status == 403
    assert authenticate(ring, f"Bearer {other}", None, time.time()) == plain


def test_a_file_with_a_role_that_is_none_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "keys.json"
    save(path, KeyRing([mint("x", role="viewer")[0]]))
    path.write_text(path.read_text().replace('"viewer"', '"root"'))
    with pytest.raises(LumenError, match="not a file of keys"):
        load(path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"request": 7}',
        b'{"request": "\xff"}',
        b"\xff\xfe",
        b"[" * 60_000,
        b'"x"',
        b"1e999",
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_whatever_is_sent_is_refused_in_order(door: Door, body: bytes) -> None:
    door.caller = admin.Caller("ann", "admin")
    headers = {"Content-Type": "application/json"}
    async with door.session.post(door.url + "/admin/cancel", data=body, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "request"
    assert door.operator.done == []


async def test_a_body_that_is_too_large_or_never_ends_is_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door.caller = admin.Caller("ann", "admin")
    status, _ = await door.ask("POST", "/admin/cancel", {"request": "x" * 70_000})
    assert status == 413
    monkeypatch.setattr(admin, "_BODY_TIMEOUT", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    writer.write(
        b"POST /admin/cancel HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    async with asyncio.timeout(100):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
