"""Books and keys for operators: who is refused what, what is written, and that no secret is told twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumen.audit import AuditLog
from lumen.clerk import MOST_ENTRIES, Clerk
from lumen.core.errors import RequestError
from lumen.keys import load
from lumen.ledger.store import Ledger
from lumen.paths import Paths
from tests.ledger.ledgers import NOON, attempt

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Place:
    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "c", folder / "d", folder / "s", folder / "r")
        self.paths.make()
        self.reloads = 0
        self.clerk = Clerk(self.paths, self.reload)

    async def reload(self) -> None:
        self.reloads += 1


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_a_key_is_made_limited_and_revoked_and_its_secret_told_once(place: Place) -> None:
    asked = {"routes": ["fast"], "lasts": 60, "priority": "low", "limits": {"daily": 5, "rpm": 60}}
    made = await place.clerk.add_key("app", json.dumps(asked))
    ring = load(place.paths.keys_file)
    found = ring.find(made["key"], ring.keys[0].created + 30)
    assert found is not None and found.id == made["id"]
    assert (found.routes, found.limits.daily, found.limits.rpm, found.priority) == (("fast",), 5, 60, "low")
    assert ring.find(made["key"], ring.keys[0].created + 61) is None
    told = await place.clerk.set_key("app", json.dumps({"limits": {"daily": None, "credit": 9}, "priority": None}))
    assert (told["limits"]["daily"], told["limits"]["credit"], told["limits"]["rpm"]) == (None, 9, 60)
    assert told["priority"] is None and told["reserve"] is False
    assert (await place.clerk.set_key("app", json.dumps({"reserve": True})))["reserve"] is True
    told = await place.clerk.set_key("app", json.dumps({"models": ["a", "b*"], "lasts": 60, "retains": False}))
    assert (told["models"], told["retains"], told["reserve"]) == (("a", "b*"), False, True)
    assert told["expires"] is not None
    assert (await place.clerk.set_key("app", json.dumps({"lasts": None})))["expires"] is None
    listed = await place.clerk.keys()
    assert [key["name"] for key in listed] == ["app"]
    for text in (json.dumps(listed), json.dumps(told)):
        assert made["key"] not in text and found.hash not in text
    await place.clerk.revoke_key("app")
    assert load(place.paths.keys_file).find(made["key"], found.created) is None
    assert place.reloads == 6
    for work in (place.clerk.revoke_key("app"), place.clerk.set_key("app", "{}"), place.clerk.revoke_key("other")):
        with pytest.raises(RequestError) as refused:
            await work
        assert refused.value.status == 409
    assert place.reloads == 6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("", "{}"),
        ("x" * 65, "{}"),
        ("a\nb", "{}"),
        ("app", '{"reserve": true}'),
        ("a", "[]"),
        ("a", "no JSON"),
        ("a", '{"role": "king"}'),
        ("a", '{"role": "viewer", "models": ["*"]}'),
        ("a", '{"lasts": 0}'),
        ("a", '{"lasts": -1}'),
        ("a", '{"limits": {"daily": -1}}'),
        ("a", '{"limits": {"daily": 1.5}}'),
        ("a", '{"limits": {"nonsense": 1}}'),
        ("a", '{"unknown": 1}'),
    ],
)
async def test_what_can_be_no_key_is_refused_and_nothing_written(place: Place, name: str, options: str) -> None:
    with pytest.raises(RequestError):
        await place.clerk.add_key(name, options)
    assert not place.paths.keys_file.exists() and place.reloads == 0


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(), st.lists))
async def test_whatever_is_sent_is_a_key_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    place = Place(tmp_path_factory.mktemp("k"))
    for field in ("models", "routes", "lasts", "role", "retains", "priority", "limits"):
        try:
            await place.clerk.add_key(f"k{field}", json.dumps({field: value}))
        except RequestError:
            continue
    load(place.paths.keys_file)


async def test_usage_is_told_with_the_names_of_keys(place: Place) -> None:
    made = await place.clerk.add_key("app", "{}")
    ledger = Ledger(place.paths.ledger_file)
    ledger.open()
    ledger.start()
    ledger.settle([attempt("a", cost=5, key=made["id"]), attempt("a", 2, cost=7, key=made["id"])], None)
    ledger.flush(last=True)
    ledger.close()
    told = await place.clerk.usage("key", str(NOON // 1_000_000 - 60))
    assert told["names"] == {made["id"]: "app"}
    ((name, sums),) = told["rows"]
    assert (name, sums["cost"], sums["requests"], sums["attempts"]) == (made["id"], 12, 1, 2)
    assert told["total"] == sums
    assert (await place.clerk.usage("model", str(NOON // 1_000_000 + 60)))["rows"] == []
    for by, since in (("nonsense", "0"), ("key", "-1"), ("key", "x"), ("key", "9" * 30), ("key", "²")):
        with pytest.raises(RequestError):
            await place.clerk.usage(by, since)


async def test_usage_without_a_ledger_says_so(place: Place) -> None:
    with pytest.raises(RequestError) as refused:
        await place.clerk.usage("key", "0")
    assert refused.value.status == 409


async def test_the_audit_log_is_shown_and_checked(place: Place) -> None:
    log = AuditLog(place.paths.audit_file)
    for number in range(5):
        log.add("key.add" if number % 2 else "route.set", f"s{number}", "ann")
    assert [entry["subject"] for entry in await place.clerk.audit("", "3")] == ["s2", "s3", "s4"]
    assert [entry["subject"] for entry in await place.clerk.audit("key", "50")] == ["s1", "s3"]
    verdict = await place.clerk.verify("")
    assert verdict["entries"] == 5 and verdict["broken"] is None
    assert (await place.clerk.verify("0" * 64))["broken"] is not None
    with pytest.raises(RequestError):
        await place.clerk.audit("", str(MOST_ENTRIES + 1))
