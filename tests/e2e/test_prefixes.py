"""What a local model computed of a prompt outlives the gateway, unless nothing may be kept."""

from __future__ import annotations

from typing import Any

import pytest
from lumen_cli.client import Admin

from lumen.paths import Paths, _run_dir
from tests.e2e.conftest import Box

PROMPT = "".join(f"{i} green bottles hang on the wall. " for i in range(40))


def ask(box: Box) -> tuple[int, int, str]:
    """Tokens of the prompt, how many of them were there, and the greedy answer."""
    more: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
    answer = box.client().completions.create(model="lumen/auto", prompt=PROMPT, **more)
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens or 0, answer.choices[0].text


@pytest.mark.parametrize("retention", ["usual", "none"])
def test_the_first_request_after_a_restart(fresh: Box, retention: str) -> None:
    config = fresh.home / "config" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"retention: {retention}\n")
    fresh.up()
    whole, cached, _ = ask(fresh)
    assert whole > 300 and cached == 0
    _, _, expected = ask(fresh)
    fresh.lumen("down")
    folder = fresh.home / "state" / "prefixes"
    kept = list(folder.rglob("*.kv"))
    assert bool(kept) is (retention == "usual")
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
    fresh.up()
    _, cached, text = ask(fresh)
    assert text == expected
    assert cached >= whole - 2 if kept else cached == 0
    # What was computed while it might be kept is not written once it may not.
    config.write_text("retention: none\n")
    state = folder.parent
    Admin(Paths(config.parent, state, fresh.home / "data", _run_dir(state)).admin_socket).post("/admin/reload")
    fresh.lumen("down")
    assert not list(folder.rglob("*.kv"))
