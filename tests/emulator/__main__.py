from __future__ import annotations

import argparse

from aiohttp import web

from tests.emulator.server import Emulator

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=9000)
web.run_app(Emulator().app(), host="127.0.0.1", port=parser.parse_args().port)
