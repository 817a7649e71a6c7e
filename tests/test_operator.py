"""What an operator's side of the gateway writes down by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lumen
from lumen.audit import AuditLog
from lumen.operator import Operator


def test_each_start_is_on_record_with_the_configuration_that_it_has(tmp_path: Path) -> None:
    """A configuration that was changed by hand, and taken over by a restart, shows by its digest."""
    config, audit = tmp_path / "config.yaml", AuditLog(tmp_path / "audit.jsonl")
    service: Any = SimpleNamespace(config_file=config, audit=audit, learning=None, paths=None)

    def started() -> str:
        asyncio.run(Operator(service).begun("ann"))
        entry = [*audit.entries()][-1]
        assert (entry.action, entry.who, entry.details["version"]) == ("gateway.started", "ann", lumen.__version__)
        return str(entry.details["config"])

    without = started()
    config.write_text("server: {port: 7777}\n")
    first = started()
    assert first == started() and without == "none"
    config.write_text("server: {port: 8888}\n")
    assert started() not in (first, without)
    assert audit.verify().broken is None
