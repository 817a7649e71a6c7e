"""A ledger whose process may not write beyond a size, and then may again: `python -m tests.ledger.starved PATH`.

The limit is the operating system's own, so it is the real write of the log that fails. Says what came of it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from lumen.ledger.store import LedgerError
from tests.ledger.ledgers import attempt, committed, hold, opened


async def work(path: Path) -> None:
    async with opened(path) as (ledger, _):
        ledger.hold(hold("running"))
        await committed(ledger)
        limit = path.with_name(path.name + "-wal").stat().st_size + 20_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        admitted = 0
        try:
            while admitted < 1000:
                ledger.hold(hold(f"new{admitted}"))
                admitted += 1
                await asyncio.sleep(0.01)
        except LedgerError:
            sick = ledger.trouble
        ledger.settle([attempt("running", cost=7)], "running")
        refused = 0
        for number in range(3):
            try:
                ledger.hold(hold(f"late{number}"))
            except LedgerError:
                refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await committed(ledger)
        ledger.hold(hold("after"))
    sys.stdout.write(json.dumps({"admitted": admitted, "sick": sick, "refused": refused}))


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
