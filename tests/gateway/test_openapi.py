"""The OpenAPI document: as many rows as there are endpoints, and schemas that say what the parsers do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lumen.gateway import admin
from lumen.gateway.app import ENDPOINTS
from lumen.gateway.openapi import SIGN_ON, SURFACE, document
from lumen.gateway.remote import Remote
from tests.gateway.conftest import Up

FOUND: dict[str, Any] = json.loads(document())


def test_every_endpoint_has_its_row_and_every_row_its_endpoint() -> None:
    served = {(e.method, e.path) for e in ENDPOINTS if not e.path.startswith("/admin/")}
    told = {(row.method, re.sub(r"\{.*", "", row.path)) for row in SURFACE}
    assert told == served, "lumen/gateway/openapi.py lacks a row in SURFACE, or has one too many"


def test_every_admin_call_is_told_with_its_role() -> None:
    for call in admin.CALLS:
        path = call.path + "{id}" if call.prefix else call.path
        operation = FOUND["paths"][path][call.method.lower()]
        assert f"Role {call.role}" in operation["summary"]
        if call.fields:
            assert set(operation["requestBody"]["content"]["application/json"]["schema"]["required"]) == set(
                call.fields
            )


def test_what_signs_on_and_off_is_told() -> None:
    served = Remote(None, None)._own  # type: ignore[arg-type]
    assert {(row.method, row.path) for row in SIGN_ON} == set(served)


def test_it_holds_together() -> None:
    assert FOUND["openapi"].startswith("3.1")
    text = document().decode()
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in FOUND["components"]["schemas"]
    ids = [operation["operationId"] for path in FOUND["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for path, operations in FOUND["paths"].items():
        for operation in operations.values():
            names = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert names == set(re.findall(r"\{(\w+)\}", path))


def test_a_field_that_is_taken_is_told() -> None:
    chat = FOUND["components"]["schemas"]["ChatRequest"]
    assert {"model", "messages"} <= set(chat["required"])
    assert {"temperature", "tools", "response_format", "stream_options", "seed"} <= set(chat["properties"])
    # What only Lumen itself writes is nothing that a client may send.
    assert "prefix" not in FOUND["components"]["schemas"]["Message"]["properties"]


@pytest.mark.anyio
async def test_it_is_served_to_everybody(up: Up) -> None:
    async with up.session.get(f"{up.url}/openapi.json") as answer:
        assert answer.status == 200 and answer.content_type == "application/json"
        assert await answer.json() == FOUND
