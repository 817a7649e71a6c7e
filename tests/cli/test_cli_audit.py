"""What commands change is on record, without secrets, and the record can be checked."""

from __future__ import annotations

import json
from collections.abc import Callable

from lumen.paths import Paths
from tests.cli.harness import Ran

Run = Callable[..., Ran]


def test_changes_are_on_record_and_secrets_are_not(lumen: Run) -> None:
    assert lumen("route", "set", "fast", "--target", "lumen-tiny").code == 0
    secret = lumen("key", "add", "ann").out.strip().splitlines()[0]
    assert lumen("key", "revoke", "ann").code == 0
    assert lumen("route", "rm", "fast").code == 0
    entries = lumen("audit", "ls", "--json").json
    assert [entry["action"] for entry in entries] == ["route.set", "key.add", "key.revoke", "route.rm"]
    assert entries[0]["subject"] == "fast"
    assert secret not in json.dumps(entries)
    keys = lumen("audit", "ls", "--action", "key", "--json").json
    assert [entry["action"] for entry in keys] == ["key.add", "key.revoke"]
    checked = lumen("audit", "verify")
    assert (checked.code, "4 entries" in checked.out) == (0, True)


def test_who_looks_at_the_keys_is_on_record(lumen: Run) -> None:
    lumen("key", "add", "ann")
    assert "ann" in lumen("key", "ls").out
    (entry,) = lumen("audit", "ls", "--action", "key.ls", "--json").json
    assert entry["who"] and "ann" not in json.dumps(entry["details"])


def test_a_record_that_was_changed_is_found(lumen: Run, home: Paths) -> None:
    lumen("key", "add", "ann")
    lumen("key", "revoke", "ann")
    log = home.audit_file
    log.write_text(log.read_text().replace("key.revoke", "key.rename"))
    checked = lumen("audit", "verify")
    assert checked.code == 1
    assert "broken at entry 2" in checked.err
