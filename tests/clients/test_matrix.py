"""Every client does what the table in docs/api.md says, on the built-in engine and on a provider of each dialect.

With `LUMEN_CLIENTS_RECORD=1` what comes out is written down; `python -m tools.compatibility` makes the table of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.clients.matrix import CLIENTS, Client, outcomes, record
from tests.clients.rig import Rig, rigged

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Rig]]:
    """Started by the first client that is there to use it."""
    with ExitStack() as running:
        yield cache(lambda: running.enter_context(rigged(tmp_path_factory.mktemp("clients") / "box")))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_it_works_as_recorded(client: Client, installed: None, rig: Callable[[], Rig]) -> None:
    version, results = rig().drive(client)
    if os.environ.get("LUMEN_CLIENTS_RECORD"):
        record(client, version, results)
    recorded = outcomes()[client.name]
    assert version == recorded["version"]
    differing = {
        f"{feature} on {target}": why or "works now; record it"
        for feature, told in results.items()
        for target, why in told.items()
        if (why is None) != (recorded["results"].get(feature, {}).get(target, "") is None)
    }
    assert not differing
    assert {name: set(told) for name, told in results.items()} == {
        name: set(told) for name, told in recorded["results"].items()
    }
