"""The process that an operator's checker runs in: `python -m lumen.learning.checker WRITTEN`.

A line of JSON in, `[request, answer, incumbent]`; a line out: how good the answer is, or `{"error": …}`. It ends with
its standard input. First of all it says `{"ready": true}`, or what is wrong with the checker.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout

from lumen.learning.checks import CheckerError, load


def main(written: str) -> int:
    """Serve until standard input ends."""
    told = sys.stdout
    os.nice(10)
    # What a checker prints is no answer of ours.
    with redirect_stdout(sys.stderr):
        try:
            check = load(written)
        except CheckerError as error:
            told.write(json.dumps({"error": str(error)}) + "\n")
            return 1
        told.write('{"ready": true}\n')
        told.flush()
        for line in sys.stdin:
            try:
                answer = json.dumps(check(*json.loads(line)))
            except Exception as error:  # noqa: BLE001 - whatever a checker raises is told, and the next pair is tried
                answer = json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})
            told.write(answer + "\n")
            told.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
