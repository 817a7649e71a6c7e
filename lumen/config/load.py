"""The configuration file → `Config`."""

from __future__ import annotations

from pathlib import Path

from lumen.config import nodes
from lumen.config.checks import check
from lumen.config.reading import document
from lumen.config.schema import Config
from lumen.core.errors import ConfigError


def load(path: Path | None) -> Config:
    """The configuration at `path`; the defaults where `path` is `None`.

    Raises:
        ConfigError: the file is missing, unreadable or wrong; the message begins with `file:line`.
    """
    if path is None:
        return Config()
    return parse(read(path), str(path))


def locate(given: Path | None, usual: Path) -> Path | None:
    """Which file to load: the one that was named, else the usual one where it exists, else none."""
    return given if given is not None else usual if usual.exists() else None


def read(path: Path) -> str:
    """The text of a configuration file, of bounded size.

    Raises:
        ConfigError: missing, unreadable, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(nodes.MAX_TEXT * 4 + 1)
        return raw.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def parse(text: str, name: str) -> Config:
    """The configuration written in `text`; `name` stands for the file in errors. Pure.

    Raises:
        ConfigError: with `name:line` of the offending key.
    """
    config, at = document(text, name, Config, Config())
    check(config, at)
    return config
