"""Where an authority's account and certificate lie, and what is written down between tries."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from lumen.acme.plan import Tries
from lumen.files import write_atomic

# Key, certificate and those between it and the authority in one file: never one without the other.
CERTIFICATE = "certificate.pem"
ACCOUNT = "account.json"
_TRIES = "tries.json"


def folder(data_dir: Path, directory: str) -> Path:
    """The folder of one directory: an account is good nowhere else, and a trial's certificates are not real ones."""
    digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
    host = re.sub(r"[^a-z0-9.-]", "", (urlsplit(directory).hostname or "").lower())
    return data_dir / "acme" / f"{host}-{digest}"


def load_tries(folder: Path, about: str) -> Tries:
    """What was written down, where it was about the same order; else nothing was tried."""
    try:
        found = json.loads((folder / _TRIES).read_bytes())
        if found.pop("about") == about:
            return Tries(int(found["failed"]), float(found["after"]), str(found["why"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # It only spares an authority; what cannot be read is as good as none.
        return Tries()
    return Tries()


def save_tries(folder: Path, about: str, tries: Tries) -> None:
    """Write down what was tried, before it is: a gateway that dies of it does not hammer an authority."""
    if tries.failed:
        write_atomic(folder / _TRIES, json.dumps({"about": about, **asdict(tries)}).encode(), mode=0o600)
    else:
        (folder / _TRIES).unlink(missing_ok=True)
