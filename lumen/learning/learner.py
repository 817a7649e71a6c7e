"""Learns a route's scorer from its labels, in a process of its own, and puts it on the shelf."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lumen.core.errors import RequestError, UnavailableError
from lumen.learning.fit import Report, Task
from lumen.learning.shelf import Shelf, ShelfError

# Seconds that learning may take.
LONGEST = 900.0


class Learner:
    """One at a time; the others wait. `ledger`: the file with the labels."""

    def __init__(self, shelf: Shelf, ledger: Path) -> None:
        self.shelf = shelf
        self._ledger = ledger
        self._turn = asyncio.Lock()
        # Route → what the last learning of this process came to.
        self.last: dict[str, dict[str, Any]] = {}

    async def learn(
        self, route: str, targets: Sequence[str], strong: str, limit: float, confidence: float,
        aside: Sequence[str], *, dry: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Learn, certify, replay, and make the new version live; what came of it. Nothing changes below 300 labels,
        where the replay breaks the promise, and in a `dry` run; but where the live version breaks it too, none is live.
        `aside`: judges whose labels are not learnt from.

        Raises:
            UnavailableError: the process failed or took too long.
            OSError: the shelf cannot be written.
        """
        async with self._turn:
            with tempfile.TemporaryDirectory(prefix="lumen-learn-") as folder:
                out = Path(folder) / "scorer"
                current = await asyncio.to_thread(self.shelf.current, route)
                live = None
                if current is not None:
                    live = str(Path(folder) / "live")
                    await asyncio.to_thread(Path(live).write_bytes, current[1])
                task = Task(
                    str(self._ledger), route, list(targets), strong, limit, confidence, list(aside), str(out), live
                )
                report = await self._run(task)
                told: dict[str, Any] = {"route": route, "labels": report.labels, "missing": report.missing}
                told["strangers"] = report.strangers
                told |= {"refused": report.refused, "figures": report.figures, "version": None, "dry": dry}
                told["withdrawn"] = None
                if report.made and not report.refused and not dry:
                    note = f"{report.labels} labels, against {strong}, at most {limit:.1%} loss at {confidence:.0%}"
                    told["version"] = await asyncio.to_thread(self._keep, route, out, note)
                if report.withdrawn and current is not None and not dry:
                    await asyncio.to_thread(self.shelf.use, route, None)
                    told |= {"withdrawn": current[0], "why": report.withdrawn}
                self.last[route] = told
                return told

    async def rollback(self, route: str, version: int | None = None) -> int | None:
        """Make an earlier version live: the one given, else the newest before the live one; `None`: none is then.

        Raises:
            RequestError: there is no such version, or nothing is live.
        """

        def back() -> int | None:
            versions = self.shelf.versions(route)
            live = next((one.number for one in versions if one.live), None)
            if version is None and live is None:
                raise RequestError(f"Nothing that '{route}' has learnt is in force.", param="route")
            earlier = [one.number for one in versions if live is None or one.number < live]
            chosen = version if version is not None else (max(earlier) if earlier else None)
            try:
                self.shelf.use(route, chosen)
            except ShelfError as error:
                raise RequestError(f"{error}.", param="version") from None
            return chosen

        return await asyncio.to_thread(back)

    def _keep(self, route: str, out: Path, note: str) -> int:
        version = self.shelf.put(route, out.read_bytes(), note)
        self.shelf.use(route, version)
        return version

    async def _run(self, task: Task) -> Report:
        # More threads than one would take cores from those who answer.
        one = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lumen.learning.fit", msgspec.json.encode(task).decode(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **one},
        )  # fmt: skip
        try:
            async with asyncio.timeout(LONGEST):
                told, trouble = await process.communicate()
        except TimeoutError:
            raise UnavailableError("Learning took too long and was stopped.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = trouble.decode(errors="replace").strip().splitlines()[-1:]
            raise UnavailableError(f"Learning failed: {' '.join(last) or process.returncode}")
        return msgspec.json.decode(told, type=Report)
