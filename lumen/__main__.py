"""`python -m lumen`: the gateway process."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m lumen", description="Run the Lumen gateway.")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--profile")
    parser.add_argument("--succeed", action="store_true", help="take over from the gateway that runs")
    given = parser.parse_args()

    # Scores are too small to be shared out: threads that wait for a part of one would take cores from those who answer.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from lumen.runtime import serve
    from lumen.service import Options

    return serve(Options(given.config, given.host, given.port, given.profile, given.succeed))


if __name__ == "__main__":
    sys.exit(main())
