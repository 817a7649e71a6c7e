"""PURE: what two configurations differ in, by name alone: who changed what is kept for years, its values are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from lumen.config.schema import Config


def differences(before: Config, after: Config) -> list[str]:
    """Names of what changed: a section (`server`), or one entry of those that have names (`routes.fast`)."""
    return [
        name
        for one in fields(Config)
        for name in _changed(one.name, getattr(before, one.name), getattr(after, one.name))
    ]


def _changed(section: str, before: Any, after: Any) -> Iterator[str]:
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        if before != after:
            yield section
        return
    for name in sorted({*before, *after}):
        if (name in before) != (name in after) or before.get(name) != after.get(name):
            yield f"{section}.{name}"
