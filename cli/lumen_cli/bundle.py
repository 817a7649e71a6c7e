"""One archive for a report of a fault, with nothing in it that is somebody's own.

Nothing is taken out of what is found; what may go in is put in: of the configuration its keys, numbers, switches and
words that Lumen itself defines; of logs the words that occur in Lumen's own program or name something the configuration
declares, and short numbers; of status and metrics what the gateway tells, treated alike. Everything else becomes `▒`.
"""

from __future__ import annotations

import io
import json
import platform
import re
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from lumen.paths import Paths
from lumen_cli import gateway
from lumen_cli.client import Admin
from lumen_cli.errors import CliError

GONE = "▒"
# What Prometheus adds to names and comments.
_METRICS = ("HELP", "TYPE", "bucket", "count", "sum", "total", "created", "gauge", "counter", "histogram", "info")
_LINES = 500
_LOGS = 20
_WORD = re.compile(r"[A-Za-z0-9_]+|[^A-Za-z0-9_]")
# Longer numbers may be a card's or a telephone's.
_DIGITS = 9
_PACKAGES = (
    "lumen-serve",
    "aiohttp",
    "uvloop",
    "httptools",
    "msgspec",
    "llama-cpp-python",
    "vllm",
    "opentelemetry-sdk",
)
# Where the configuration holds words of Lumen's own or names that it declares: field names, whatever section.
_WORDS = (
    "policy engine kv_type pooling preset dialect level format hedge content_filter metrics retention prefill "
    "max_tokens_field profile model strong target"
)
_PLAIN = frozenset(_WORDS.split())


@dataclass
class Gathered:
    """What goes into the archive: names and texts."""

    words: frozenset[str]
    files: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: Any) -> None:
        """JSON, each text in it as its words allow."""
        self.files[name] = json.dumps(cleaned(value, self.words), indent=1, ensure_ascii=False, default=str)

    def lines(self, name: str, lines: Iterable[str]) -> None:
        self.files[name] = "".join(clean(line, self.words) + "\n" for line in lines)


def clean(text: str, words: frozenset[str]) -> str:
    """A text with nothing but known words, short numbers and punctuation."""
    return re.sub(f"{GONE}+", GONE, "".join(_kept(part, words) for part in _WORD.findall(text)))


def _kept(part: str, words: frozenset[str]) -> str:
    if part.isascii() and part.removesuffix("e").isdigit():
        return part if len(part) <= _DIGITS else GONE
    if part[0].isascii() and (part[0].isalnum() or part[0] == "_"):
        # What has digits in it is known as a whole or not at all: parts of a key may be words.
        name, _, suffix = part.rpartition("_")
        known = part in words or (name in words and suffix in _METRICS)
        return part if known or all(piece in words for piece in part.split("_") if piece) else GONE
    return part if part.isascii() and (part.isprintable() or part == "\t") else GONE


def cleaned(value: Any, words: frozenset[str]) -> Any:
    if isinstance(value, str):
        return clean(value, words)
    if isinstance(value, dict):
        return {clean(str(name), words): cleaned(item, words) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item, words) for item in value]
    return value


def configured(value: Any, name: str = "") -> Any:
    """A configuration with the texts that are its owner's left out; names of models, routes and providers stay."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: configured(getattr(value, one.name), one.name) for one in fields(value)}
    if isinstance(value, str):
        return value if name in _PLAIN else GONE
    if name in ("headers", "options", "defaults", "roles") and isinstance(value, dict):
        return {GONE: len(value)} if value else {}
    if isinstance(value, dict):
        return {key: configured(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [configured(item, name) for item in value]
    return value


def vocabulary(names: Iterable[str]) -> frozenset[str]:
    """Every word of Lumen's own program, and of these names."""
    import lumen

    found: set[str] = set(_METRICS)
    root = Path(lumen.__file__).parent
    for path in root.rglob("*.py"):
        found.update(re.findall(r"[A-Za-z0-9_]+", path.read_text("utf-8")))
    for name in names:
        found.update(re.findall(r"[A-Za-z0-9_]+", name))
    return frozenset(found)


def write(paths: Paths, config_file: Path, into: Path, findings: list[dict[str, Any]]) -> list[str]:
    """Write the archive to `into`; the names of what is in it.

    Raises:
        OSError: it cannot be written.
    """
    config, broken = _config(config_file)
    names = [*config.models, *config.providers, *config.routes] if config is not None else []
    targets = [target.model for route in config.routes.values() for target in route.targets] if config else []
    found = Gathered(vocabulary([*names, *targets]))
    found.put("versions.json", _versions())
    found.put("findings.json", findings)
    found.files["config.json"] = json.dumps(
        {"error": clean(broken, found.words)} if config is None else configured(config), indent=1, ensure_ascii=False
    )
    found.put("hardware.json", _hardware())
    _running(found, Admin(paths.admin_socket), paths)
    for log in sorted(paths.log_dir.glob("*.log"), key=lambda path: path.stat().st_mtime)[-_LOGS:]:
        found.lines(f"logs/{clean(log.name, found.words)}", gateway.tail(log, _LINES))
    _archive(found.files, into)
    return list(found.files)


def _config(path: Path) -> tuple[Any, str]:
    from lumen.config.load import load, locate
    from lumen.core.errors import ConfigError

    try:
        return load(locate(None, path)), ""
    except ConfigError as error:
        return None, error.message


def _versions() -> dict[str, Any]:
    from lumen import __version__

    found: dict[str, Any] = {"lumen": __version__, "python": platform.python_version(), "system": platform.system()}
    found |= {"release": platform.release(), "machine": platform.machine(), "at": round(time.time())}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {**found, "executable": Path(sys.executable).name}


def _hardware() -> dict[str, Any]:
    from lumen.hardware import detect

    return asdict(detect())


def _running(found: Gathered, admin: Admin, paths: Paths) -> None:
    """What a running gateway tells; that none runs is worth knowing too."""
    for name in ("status", "targets", "failovers", "routes", "memory"):
        try:
            found.put(f"{name}.json", admin.get(f"/admin/{name}"))
        except CliError as error:
            found.put(f"{name}.json", {"error": error.what})
    record = gateway.record(paths)
    if record is not None and paths.local_key_file.exists():
        found.lines("metrics.txt", _metrics(gateway.local_url(record.url), paths.local_key_file.read_text().strip()))


def _metrics(url: str, key: str) -> list[str]:
    import urllib.error
    import urllib.request

    asked = urllib.request.Request(f"{url.removesuffix('/v1')}/metrics", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return list(answer.read(16 * 1024 * 1024).decode("utf-8", "replace").splitlines())
    except (OSError, urllib.error.URLError, ValueError) as error:
        return [f"none: {type(error).__name__}"]


def _archive(files: dict[str, str], into: Path) -> None:
    new = into.with_name(f".{into.name}.new")
    with tarfile.open(new, "w:gz") as tar:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(f"lumen-report/{name}")
            info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
            tar.addfile(info, io.BytesIO(data))
    new.chmod(0o600)
    new.replace(into)
