"""Run the emulated provider in the foreground; `server.py` tells what the models' names mean."""

from __future__ import annotations

import argparse

from aiohttp import web

from tests.emulator.half_open import HalfOpen
from tests.emulator.server import Emulator

parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__)
parser.add_argument("--port", type=int, default=9000)
parser.add_argument("--half-open-port", type=int, help="also listen here, and never read what comes")
options = parser.parse_args()
half_open = HalfOpen(options.half_open_port) if options.half_open_port is not None else None
try:
    # Scripts that are silent must end when their client leaves.
    web.run_app(Emulator().app(), host="127.0.0.1", port=options.port, handler_cancellation=True)
finally:
    if half_open is not None:
        half_open.close()
