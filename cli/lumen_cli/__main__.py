"""`python -m lumen_cli`: the `lumen` command where no script was installed."""

from __future__ import annotations

import sys

from lumen_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
