"""Which gateway a command line is about; known before anything else is imported."""

from __future__ import annotations

# What `--url` or LUMEN_URL say; `None`: the gateway of this machine.
_chosen: str | None = None


def choose(name_or_url: str | None) -> None:
    """Which gateway the command is about; `None`: this machine's."""
    global _chosen
    _chosen = name_or_url or None


def forget() -> None:
    """The command is over."""
    choose(None)


def chosen() -> str | None:
    return _chosen
