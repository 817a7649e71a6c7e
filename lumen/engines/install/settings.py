"""The machine's pip settings as variables that uv understands, for everything that installs packages.

uv does not read pip's configuration: an index, a certificate or a proxy set only there would be missed. The values
are handed on in the environment and written to no file. Meaning of the uv variables: uv's reference, "Environment
variables".
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

# Later wins, as in pip itself: [global], then the command's own section, then PIP_* variables.
_SECTIONS = ("global", "install", ":env:")


def parse(listing: str) -> dict[str, str]:
    """Settings from the output of `pip config list` (lines `section.name='value'`), by plain name."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        name, equals, quoted = line.partition("=")
        section, dot, key = name.rpartition(".")
        if not equals or not dot or section.rstrip(".") not in found:
            continue
        try:
            value = ast.literal_eval(quoted)
        except (SyntaxError, ValueError):
            continue
        found[section.rstrip(".")][key.lower().replace("_", "-")] = str(value)
    return {key: value for section in _SECTIONS for key, value in found[section].items()}


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What PIP_* variables say, for a Python without pip."""
    return {name[4:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("PIP_")}


def translate(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables for uv (and what it starts) out of pip's settings; those set already are left out."""
    out: dict[str, str] = {}
    if pip.get("index-url"):
        out["UV_DEFAULT_INDEX"] = pip["index-url"]
    if pip.get("extra-index-url"):
        out["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        # pip looks at every index; uv stops at the first that knows the name. Every file is hash-checked.
        out["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if pip.get("find-links"):
        out["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if pip.get("trusted-host"):
        out["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if pip.get("cert"):
        out["SSL_CERT_FILE"] = pip["cert"]
    if pip.get("client-cert"):
        out["SSL_CLIENT_CERT"] = pip["client-cert"]
    if pip.get("proxy") and "https_proxy" not in environ:
        out["HTTPS_PROXY"] = pip["proxy"]
    if pip.get("timeout") or pip.get("default-timeout"):
        out["UV_HTTP_TIMEOUT"] = str(int(float(pip.get("timeout") or pip["default-timeout"])))
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        out["LUMEN_NO_INDEX"] = "1"
    older = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
    return {key: value for key, value in out.items() if key not in environ and older.get(key, key) not in environ}


def listing(python: str) -> str:
    """What `pip config list` prints; empty where that Python has no pip."""
    try:
        done = subprocess.run(
            [python, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def for_uv() -> dict[str, str]:
    """Variables for uv on this machine, on top of the ones that are set."""
    # A virtualenv often has no pip of its own; the Python it was made from mostly has.
    base = os.path.realpath(sys.executable)
    return translate(parse(listing(base)) or from_environment(os.environ), os.environ)
