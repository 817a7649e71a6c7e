"""Whose process this is."""

from __future__ import annotations

import getpass
import os


def owner() -> str:
    """The name of the user this process runs as; `uid N` where nobody gave it one, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Python before 3.13 says the one, later ones the other
        return f"uid {os.getuid()}"
