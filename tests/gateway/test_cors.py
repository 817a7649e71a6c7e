"""Which pages may read: exactly those of the origins that are named, every kind of answer, and never the admin API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumen.gateway
from lumen.gateway.cors import EXPOSED, Cors
from tests.gateway.conftest import Up

pytestmark = pytest.mark.anyio
PAGE, OTHER = "https://app.example", "https://other.example"
CHAT = {"model": "fake/words-3", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
def shared(up: Up) -> Up:
    up.state.cors = Cors([PAGE, "http://localhost:3000"])
    return up


async def ask(up: Up, method: str, path: str, origin: str | None, body: Any = None, **more: str) -> Any:
    headers = {"Authorization": f"Bearer {up.secret}", **({"Origin": origin} if origin else {}), **more}
    async with up.session.request(method, up.url + path, json=body, headers=headers) as answer:
        await answer.read()
        return answer


def lets(answer: Any) -> str | None:
    told = answer.headers.getall("Access-Control-Allow-Origin", [])
    assert len(told) <= 1 and "Access-Control-Allow-Credentials" not in answer.headers
    return told[0] if told else None


# Answers of every kind: whole and streamed ones are written past the server library, all others by it.
ASKED = [
    ("POST", "/v1/chat/completions", CHAT, 200),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200),
    ("POST", "/v1/messages", {**CHAT, "max_tokens": 5, "stream": True}, 200),
    ("POST", "/v1/chat/completions", {**CHAT, "model": "nothing"}, 404),
    ("POST", "/v1/chat/completions", {**CHAT, "model": "fake/status-503", "stream": True}, None),
    ("POST", "/v1/chat/completions", {}, 400),
    ("GET", "/v1/models", None, 200),
    ("GET", "/health", None, 200),
    ("GET", "/nowhere", None, 404),
    ("PUT", "/v1/models", None, 405),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ASKED, ids=lambda value: str(value)[:30])
async def test_a_named_page_may_read_every_answer_and_no_other_page_may(
    shared: Up, method: str, path: str, body: Any, status: int | None
) -> None:
    # One connection and then another page, so that nothing of one answer is left for the next.
    for origin in (PAGE, OTHER, None, PAGE, f"{PAGE}.evil.example", PAGE.upper(), "null", f"{PAGE}:8443"):
        answer = await ask(shared, method, path, origin, body)
        assert answer.status == status or status is None
        assert lets(answer) == (PAGE if origin == PAGE else None)
        assert answer.headers["Vary"] == "Origin"
        if origin == PAGE:
            assert set(EXPOSED) == set(answer.headers["Access-Control-Expose-Headers"].split(", "))
            assert answer.headers["x-request-id"]
        else:
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(("method", "path", "body", "status"), ASKED[:2], ids=["whole", "streamed"])
async def test_off_no_answer_speaks_of_it(up: Up, method: str, path: str, body: Any, status: int) -> None:
    for origin in (PAGE, None):
        answer = await ask(up, method, path, origin, body)
        assert answer.status == status and lets(answer) is None and "Vary" not in answer.headers
    asked = await ask(up, "OPTIONS", path, PAGE, **{"Access-Control-Request-Method": "POST"})
    assert asked.status == 405 and lets(asked) is None


async def test_a_browser_that_asks_first_is_told(shared: Up) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = await ask(shared, "OPTIONS", "/v1/chat/completions", PAGE, **asks)
    assert answer.status == 204 and lets(answer) == PAGE
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"] and answer.headers["Access-Control-Max-Age"]
    assert "Access-Control-Allow-Private-Network" not in answer.headers
    asks["Access-Control-Request-Private-Network"] = "true"
    near = await ask(shared, "OPTIONS", "/v1/chat/completions", PAGE, **asks)
    assert near.headers["Access-Control-Allow-Private-Network"] == "true"
    for origin, more in ((OTHER, asks), (None, asks), (PAGE, {})):
        refused = await ask(shared, "OPTIONS", "/v1/chat/completions", origin, **more)
        assert refused.status == 405 and "Access-Control-Allow-Methods" not in refused.headers


@pytest.mark.parametrize("path", ["/admin/status", "/admin/keys/add", "/admin"])
async def test_the_admin_api_is_never_shared(shared: Up, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = await ask(shared, method, path, PAGE, **{"Access-Control-Request-Method": "POST"})
        assert answer.status in (401, 403, 404, 405)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


async def test_without_keys_a_named_page_may_ask_and_no_other(shared: Up) -> None:
    shared.state.ring = None
    assert (await ask(shared, "POST", "/v1/chat/completions", PAGE, CHAT)).status == 200
    refused = await ask(shared, "POST", "/v1/chat/completions", OTHER, CHAT)
    assert refused.status == 403 and lets(refused) is None


async def test_a_name_that_is_not_served_is_not_shared_by_it(shared: Up) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Host": "evil.example"}
    assert (await ask(shared, "OPTIONS", "/v1/chat/completions", PAGE, **asks)).status == 421


@given(st.text(max_size=60) | st.just(PAGE))
def test_only_what_is_named_is_allowed(origin: str) -> None:
    assert Cors([PAGE]).allows(origin) == (origin == PAGE)


def test_every_header_of_ours_can_be_read_by_a_page() -> None:
    folder = Path(lumen.gateway.__file__).parent
    ours = {name for file in folder.glob("*.py") for name in re.findall(r'"(x-lumen-[a-z-]+)"', file.read_text())}
    assert ours - {"x-lumen-pin"} <= set(EXPOSED)
