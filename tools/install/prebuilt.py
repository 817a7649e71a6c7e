"""Which prebuilt llama-cpp-python fits this machine, and is it to be had.

    prebuilt.py tags                  the CUDA tags that fit the NVIDIA driver, best first (none without one)
    prebuilt.py find VERSION TAG...   the first TAG whose index lists VERSION for this machine; else exits 1
    prebuilt.py index TAG             the address of that index

The upstream project keeps one wheel index per variant: `cpu`, and `cuNNN` for each CUDA version (its README,
"Pre-built Wheel"): CUDA 12 wheels want compute capability 6.0 or newer, CUDA 13 wheels 7.5 or newer.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable

INDEX = "https://abetlen.github.io/llama-cpp-python/whl"
CUDA_VERSIONS = ((13, 2), (13, 0), (12, 5), (12, 4), (12, 3), (12, 2), (12, 1), (11, 8))
_TIMEOUT_S = 4.0
_MAX_PAGE = 4 << 20


def cuda_tags(smi: str, capabilities: Iterable[str]) -> list[str]:
    """Tags of the CUDA wheels that a driver can run, newest first.

    Args:
        smi: what `nvidia-smi` prints; names the newest CUDA version that the driver supports.
        capabilities: compute capability of each GPU, like "8.9"; all of them must be served.
    """
    named = re.search(r"CUDA[A-Za-z ]*Version:?\s*(\d+)\.(\d+)", smi)
    if not named:
        return []
    driver = (int(named[1]), int(named[2]))
    found = [tuple(map(int, c.split("."))) for c in capabilities if re.fullmatch(r"\d+\.\d+", c)]
    too_old_for_13 = bool(found) and min(found) < (7, 5)
    return [
        f"cu{major}{minor}"
        for major, minor in CUDA_VERSIONS
        if (major, minor) <= driver and not (major >= 13 and too_old_for_13)
    ]


def lists(page: str, version: str, machine: str, libc: str) -> bool:
    """Whether an index page names a Linux wheel of `version` for `machine` and `libc` ("glibc" or "musl")."""
    libc_tag = "musllinux" if libc == "musl" else "(?<!musl)linux"
    # name-version[+local]-python-abi-platforms.whl; the plus sign may be escaped in a link.
    name = rf"llama_cpp_python-{re.escape(version)}(?:(?:%2B|\+)[\w.]+)?-[\w.]+-[\w.]+-"
    return re.search(rf"{name}[\w.]*{libc_tag}\w*_{machine}\b", page) is not None


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _page(tag: str) -> str:
    with urllib.request.urlopen(f"{INDEX}/{tag}/llama-cpp-python/", timeout=_TIMEOUT_S) as answer:
        return str(answer.read(_MAX_PAGE).decode("utf-8", "replace"))


def _find(version: str, tags: list[str]) -> str | None:
    libc = "glibc" if platform.libc_ver()[0] == "glibc" else "musl"
    for tag in tags:
        try:
            page = _page(tag)
        except urllib.error.HTTPError:
            continue
        except (OSError, ValueError):
            # No answer at all: the other variants live on the same host.
            return None
        if lists(page, version, platform.machine(), libc):
            return tag
    return None


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["tags"]:
        caps = _run("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").split()
        print("\n".join(cuda_tags(_run("nvidia-smi"), caps)))
        return 0
    if arguments[:1] == ["find"] and len(arguments) > 2:
        tag = _find(arguments[1], arguments[2:])
        if tag:
            print(tag)
        return 0 if tag else 1
    if arguments[:1] == ["index"] and len(arguments) == 2:
        print(f"{INDEX}/{arguments[1]}")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
