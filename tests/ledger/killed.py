"""A gateway's ledger at work, to be killed: `python -m tests.ledger.killed PATH ROUND`.

Says on standard output `h NUMBER` when a hold is durable, `s NUMBER COST` when a settlement is, and `f NUMBER` when a
free request is written down, each in one write.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.ledger.ledgers import NOON, attempt, hold, opened

AT_ONCE = 16
MOST = 100_000


async def work(path: Path, begun: int) -> None:
    async with opened(path) as (ledger, found):
        os.write(1, f"lost {found.lost}\n".encode())
        numbers = iter(range(MOST))

        async def client() -> None:
            for number in numbers:
                name = f"{begun}-{number}"
                ledger.hold(hold(name, amount=1000, known=1, booked=NOON + number))
                os.write(1, f"h {name}\n".encode())
                await asyncio.sleep(0)
                ledger.settle([attempt(name, cost=number, booked=NOON + number)], name)
                os.write(1, f"s {name} {number}\n".encode())
                ledger.settle([attempt(f"free-{name}", booked=NOON + number)], None)
                os.write(1, f"f free-{name}\n".encode())

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2])))
