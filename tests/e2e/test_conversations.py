"""`/v1/responses` with storage, as a user runs it: what was answered is there after kill -9."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.conftest import Box, until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e-conversations")]
MODEL = "lumen-tiny"


def test_a_conversation_survives_kill(fresh: Box) -> None:
    config = fresh.home / "config" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("responses:\n  store: true\nmodels:\n  lumen-tiny:\n    source: builtin:tiny\n")
    fresh.up()
    first = fresh.client().responses.create(model=MODEL, input="What is Lumen?", max_output_tokens=16, temperature=0)
    os.kill(fresh.status()["pid"], signal.SIGKILL)
    until(lambda: fresh.lumen("status", check=False).returncode != 0, "the gateway to be gone")
    fresh.up()
    client = fresh.client()
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(
        model=MODEL, input="And a route?", previous_response_id=first.id, max_output_tokens=8, temperature=0
    )
    assert second.usage and first.usage and second.usage.input_tokens > first.usage.input_tokens
