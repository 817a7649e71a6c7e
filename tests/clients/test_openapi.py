"""The whole surface, fuzzed with schemathesis from the document that it serves: nothing may answer with 5xx."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lumen.gateway.openapi import document
from tests.clients import environments
from tests.gateway.conftest import Up, anyio_backend, server_config, up

__all__ = ["anyio_backend", "server_config", "up"]
pytestmark = [pytest.mark.anyio, pytest.mark.clients]
MODELS = ["warm", "failover", "fake/words-3", "fake/tool-words-2", "fake/json-words-2", "fake/filter", "nothing"]
CHECKS = (
    "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance,"
    "unsupported_method,ignored_auth"
)


@pytest.fixture(scope="session")
def program() -> Path:
    return environments.python("schemathesis").with_name("schemathesis")


def described(folder: Path) -> Path:
    """The document with the models that there are, so that requests get past their names."""
    found: dict[str, Any] = json.loads(document())
    for schema in found["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"enum": MODELS}
    # The emulated provider answers one prompt at a time, and Lumen takes no half of an answer (502).
    found["components"]["schemas"]["CompletionRequest"]["properties"]["prompt"] = {"type": "string"}
    # Whoever is sent to an issuer, or reads a stream without end, is not fuzzed.
    found["paths"] = {path: row for path, row in found["paths"].items() if not path.startswith("/admin/")}
    path = folder / "openapi.json"
    path.write_text(json.dumps(found))
    return path


@pytest.mark.timeout(600)
async def test_nothing_that_is_sent_breaks_it(up: Up, program: Path, tmp_path: Path) -> None:
    seconds = os.environ.get("LUMEN_FUZZ_SECONDS", "40")
    asked = [
        str(program), "run", str(described(tmp_path)), "--url", up.url, "--checks", CHECKS,
        "--header", f"Authorization: Bearer {up.secret}", "--max-time", seconds, "--continue-on-failure",
        "--suppress-health-check", "all", "--request-timeout", "20", "--warnings", "off", "--seed", "1",
        "--phases", "examples,coverage,fuzzing",
    ]  # fmt: skip
    done = await asyncio.to_thread(
        subprocess.run, asked, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert up.state.counters.total > 0, "requests got through to the models"
    assert up.state.counters.in_flight == 0
