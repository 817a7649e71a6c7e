"""What docs/api.md says of clients is what was recorded, with the versions that are locked."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.clients.matrix import CLIENTS, FEATURES, HERE, TARGETS, outcomes
from tools.compatibility import DOCUMENT, table, written


def test_the_table_is_of_what_was_recorded() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert written(document, outcomes()) == document, "python -m tools.compatibility"


def test_what_was_recorded_is_of_the_locked_versions() -> None:
    found = outcomes()
    assert list(found) == [one.name for one in CLIENTS]
    assert {one.name: found[one.name]["version"] for one in CLIENTS} == {one.name: one.version() for one in CLIENTS}
    for told in found.values():
        assert set(told["results"]) <= set(FEATURES)
        assert all(set(on) <= set(TARGETS) for on in told["results"].values())


def test_every_client_was_tried_with_all_that_is_asked_of_one() -> None:
    asked = {"whole", "stream", "tools", "tools_streamed", "structured", "errors", "broken", "cancel"}
    for told in outcomes().values():
        dialects = {name.partition(".")[0] for name in told["results"]} - {"other"}
        assert dialects
        for dialect in dialects:
            assert {name.partition(".")[2] for name in told["results"] if name.startswith(f"{dialect}.")} >= asked


def test_failures_are_told_beside_the_table() -> None:
    found: dict[str, Any] = {one.name: {"version": "1", "results": {}} for one in CLIENTS}
    found["litellm"]["results"] = {"chat.stream": {"local": None, "gemini": "it hangs"}, "chat.tools": {"local": "no"}}
    made = table(found)
    assert "| a stream | " in made and "local (1) |" in made and "✗ (2) |" in made
    assert made.endswith("\n\n1. gemini: it hangs\n2. local: no")
    with pytest.raises(ValueError, match="no place"):
        written("nothing", found)


def test_locked_lists_name_no_registry() -> None:
    for path in HERE.joinpath("locked").rglob("*"):
        if path.suffix == ".txt":
            text = path.read_text(encoding="utf-8")
            assert "://" not in text and "--index" not in text and "--hash=sha256:" in text
        elif path.name == "package-lock.json":
            text = path.read_text(encoding="utf-8")
            assert '"resolved"' not in text and text.count('"integrity"') == len(re.findall(r'"node_modules/', text))
