"""`python -m lumen.acme`: one job for a gateway, told and answered in lines of JSON, then the end.

The job comes as the first line of stdin: `{"do": "look" | "stopgap" | "order", "folder", "domains", …}`. What is said
on stdout, a line each: `{"show": {token: answer}}`, which waits for the line `{"shown": true}`; and last one of
`{"standing": …}`, `{"busy": true}`, `{"failed": reason, "wait": seconds}`. The end of stdin is the end of the gateway,
and of this process.
"""

from __future__ import annotations

import datetime
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lumen.acme import certificate
from lumen.acme.folder import ACCOUNT, CERTIFICATE
from lumen.acme.plan import Standing
from lumen.files import locked, write_atomic

# Seconds: of an order as a whole, and until the gateway says that challenges are served.
ORDER = 240.0
_SHOWN = 15.0
_LONGEST_LINE = 65_536
_EXIT_ORPHANED = 3


def main() -> int:
    job: dict[str, Any] = json.loads(sys.stdin.buffer.readline(_LONGEST_LINE))
    heard: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=8)
    threading.Thread(target=_hear, args=(heard,), name="parent", daemon=True).start()
    path = Path(job["folder"]) / CERTIFICATE
    domains = tuple(job["domains"])
    if job["do"] == "order":
        _tell(_order(job, path, domains, heard))
        return 0
    standing = _standing(path)
    if job["do"] == "stopgap" and standing is None:
        # Not over one that another gateway has just been given.
        with locked(path):
            standing = _standing(path)
            if standing is None:
                pem = certificate.self_signed(domains, time.time())
                write_atomic(path, pem, mode=0o600)
                standing = certificate.read(pem)
    _tell({"standing": standing and asdict(standing)})
    return 0


def _order(job: dict[str, Any], path: Path, domains: tuple[str, ...], heard: queue.Queue[Any]) -> dict[str, Any]:
    from lumen.acme.order import OrderError, Wanted, order

    wanted = Wanted(job["directory"], domains, job["email"], job["authority"], Path(job["folder"]) / ACCOUNT)

    def show(answers: Mapping[str, str]) -> None:
        _tell({"show": dict(answers)})
        try:
            said = heard.get(timeout=_SHOWN)
        except queue.Empty:
            said = {"why": "the gateway does not answer"}
        if not said.get("shown"):
            raise OrderError(f"the challenge cannot be served: {said.get('why')}")

    try:
        # Held until the end, however it comes: a gateway and its successor never order twice.
        with locked(path, wait=0.0):
            standing = _standing(path)
            if standing is not None and standing.digest != job["digest"]:
                return {"standing": asdict(standing)}
            until = datetime.datetime.now() + datetime.timedelta(seconds=ORDER)
            pem = order(wanted, show, until)
            write_atomic(path, pem, mode=0o600)
            return {"standing": asdict(certificate.read(pem))}
    except TimeoutError:
        return {"busy": True}
    except OrderError as error:
        return {"failed": str(error), "wait": error.wait}
    except OSError as error:
        return {"failed": f"{path.parent} cannot be written ({error.strerror or error})", "wait": 0.0}


def _standing(path: Path) -> Standing | None:
    """The certificate that lies there; `None` where there is none that can be read."""
    try:
        return certificate.read(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _hear(heard: queue.Queue[Any]) -> None:
    while line := sys.stdin.buffer.readline(_LONGEST_LINE):
        heard.put(json.loads(line))
    os._exit(_EXIT_ORPHANED)


def _tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
