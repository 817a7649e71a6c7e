"""Real clients, each in an environment of its own, so that what they pin cannot clash with what Lumen pins."""

from __future__ import annotations

import pytest

from tests.clients import environments
from tests.clients.matrix import Client


@pytest.fixture
def installed(client: Client) -> None:
    """The client's environment, before anything is started for it."""
    if client.javascript:
        environments.node(client.locked)
    else:
        environments.python(client.locked)
