"""Prints the machine's pip settings as shell exports that uv understands, for `eval`.

The rules are Lumen's own, which `lumen engine install` follows too. Runs on a bare Python, before anything else is
installed.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lumen.engines.install.settings import from_environment, listing, parse, translate


def _listing() -> str:
    return listing(sys.executable)


def main() -> None:
    pip = parse(_listing()) or from_environment(os.environ)
    for name, value in translate(pip, os.environ).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
