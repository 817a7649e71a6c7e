"""One file with all that an installation must not lose: made while a gateway runs, put back while none does.

In it are the ledger, the configuration, the hashes of the keys, what routes have learnt and try, what is known of
targets and models, and the audit log.
Secrets are not: neither this machine's own key nor those of providers, nor private keys of TLS. A manifest says what
each file's SHA-256 is, and nothing is put in place before everything fits.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumen import __version__
from lumen.config.load import load as load_config
from lumen.core.errors import ConfigError
from lumen.keys import load as load_keys
from lumen.ledger import copying
from lumen.paths import Paths

LEDGER = "ledger.db"
CONFIG = "config.yaml"
KEYS = "keys.json"
_MANIFEST = "manifest.json"
# What routes have learnt, each in a folder of its own; see `learning/shelf.py`.
_SCORERS = "scorers"
_SCORER = re.compile(rf"{_SCORERS}/route-[A-Za-z0-9%._~-]{{1,200}}/(?:live|\d{{6,9}}\.(?:scorer|json))", re.ASCII)
_FORMAT = 1
_BEFORE = ".before-restore"
# What one file of a backup may have, a ledger of years included.
_LARGEST = 64 * 1024**3
_LARGEST_MANIFEST = 1024 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. `created`: Unix seconds. `files`: name → SHA-256 in hex."""

    version: str
    created: float
    schema: int
    files: Mapping[str, str]


def members(paths: Paths, config: Path) -> dict[str, Path]:
    """Where each file of a backup is kept, but for what routes have learnt."""
    kept = ("targets.json", "pool.json", "memory.json", "probed.json", "trials.json", "audit.jsonl", "audit.head")
    return {
        LEDGER: paths.ledger_file,
        CONFIG: config,
        KEYS: paths.keys_file,
        **{name: paths.state_dir / name for name in kept},
    }


def backup(paths: Paths, config: Path, into: Path, now: float | None = None) -> Manifest:
    """Write a backup to `into`, which is replaced in one step. A gateway may run, and goes on.

    Raises:
        ConfigError: the ledger cannot be read.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=".lumen-backup-", dir=into.parent) as name:
        folder, schema = Path(name), 0
        for file, path in members(paths, config).items():
            if not path.exists():
                continue
            if file == LEDGER:
                schema = copying.copy(path, folder / file)
            else:
                shutil.copyfile(path, folder / file)
        _copy_scorers(paths.scorers_dir, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
        made = Manifest(__version__, time.time() if now is None else now, schema, digests)
        archive = folder / "archive.tar.gz"
        with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            with tarfile.open(fileobj=out, mode="w:gz", compresslevel=5) as tar:
                _add(tar, _MANIFEST, json.dumps({"format": _FORMAT, **_plain(made)}, indent=1).encode(), made.created)
                for one in digests:
                    tar.add(folder / one, one, filter=_anonymous)
            out.flush()
            os.fsync(out.fileno())
        archive.replace(into)
    return made


def restore(paths: Paths, config: Path, source: Path) -> tuple[Manifest, list[Path]]:
    """Put a backup in place of what is there, which is kept beside it under names that end in `.before-restore`.

    Returns:
        What the backup says of itself, and what was replaced.

    Raises:
        ConfigError: a gateway runs, the backup is damaged or newer than this program, or its configuration cannot be
            used. Nothing was changed then.
    """
    paths.make()
    with _nobody_runs(paths), tempfile.TemporaryDirectory(prefix=".lumen-restore-", dir=paths.state_dir) as name:
        folder = Path(name)
        found = _unpack(source, folder, set(members(paths, config)))
        if LEDGER in found.files:
            copying.upgrade(folder / LEDGER)
        if CONFIG in found.files:
            load_config(folder / CONFIG)
        if KEYS in found.files:
            load_keys(folder / KEYS)
        replaced = []
        for file, path in members(paths, config).items():
            if file in found.files:
                replaced += _replace(folder / file, path)
        if (folder / _SCORERS).exists():
            replaced += _replace_folder(folder / _SCORERS, paths.scorers_dir)
    return found, replaced


def _copy_scorers(scorers: Path, folder: Path) -> None:
    """What routes have learnt. The mark of what is live goes first: the version that it names is there until then."""
    found = [path for path in scorers.glob("*/*") if _SCORER.fullmatch(f"{_SCORERS}/{path.parent.name}/{path.name}")]
    for path in sorted(found, key=lambda path: path.name, reverse=True):
        into = folder / _SCORERS / path.parent.name / path.name
        into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An old version may be tidied away meanwhile.
        with suppress(FileNotFoundError):
            shutil.copyfile(path, into)


def _replace_folder(new: Path, path: Path) -> list[Path]:
    """`new` becomes the folder `path`; what was there stays aside."""
    aside, ready = path.with_name(path.name + _BEFORE), path.with_name(path.name + ".restored")
    shutil.rmtree(ready, ignore_errors=True)
    shutil.copytree(new, ready)
    ready.chmod(0o700)
    for one in ready.rglob("*"):
        one.chmod(0o700 if one.is_dir() else 0o600)
    moved = []
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        moved.append(aside)
    ready.replace(path)
    return moved


def _replace(new: Path, path: Path) -> list[Path]:
    """`new` becomes `path`; what was there, with the files beside a ledger, stays aside."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(path.name + _BEFORE)
    ready = path.with_name(path.name + ".restored")
    # Across file systems a rename is not one step; a copy beside it is made first.
    shutil.copyfile(new, ready)
    ready.chmod(0o600)
    moved = []
    for beside in copying.belongings(path) if new.name == LEDGER else []:
        beside.replace(beside.with_name(aside.name + beside.name.removeprefix(path.name)))
    if path.exists():
        path.replace(aside)
        moved.append(aside)
    ready.replace(path)
    return moved


def _unpack(source: Path, folder: Path, known: set[str]) -> Manifest:
    try:
        with tarfile.open(source, mode="r:gz") as tar:
            first = tar.next()
            if first is None or first.name != _MANIFEST or not 0 < first.size <= _LARGEST_MANIFEST:
                raise ConfigError("this is no backup of Lumen's", where=str(source))
            manifest = _manifest(_body(tar, first).read())
            while (one := tar.next()) is not None:
                ours = one.name in known or _SCORER.fullmatch(one.name) is not None
                if not ours or one.name not in manifest.files or not one.isreg() or one.size > _LARGEST:
                    raise ConfigError(f"there is something else in it ({one.name[:80]!r})", where=str(source))
                (folder / one.name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with (folder / one.name).open("xb") as file:
                    shutil.copyfileobj(_body(tar, one), file, _CHUNK)
    except FileNotFoundError:
        raise ConfigError("there is no such file", where=str(source)) from None
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the backup is damaged ({type(error).__name__})", where=str(source)) from None
    for name, digest in manifest.files.items():
        if not (folder / name).exists() or _digest(folder / name) != digest:
            raise ConfigError(f"the backup is damaged: {name} is not what was put in", where=str(source))
    return manifest


def _manifest(raw: bytes) -> Manifest:
    told: dict[str, Any] = json.loads(raw)
    if told.pop("format") != _FORMAT:
        raise ConfigError("this backup was written by a newer Lumen")
    return Manifest(**told)


def _plain(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "created": manifest.created,
        "schema": manifest.schema,
        "files": dict(manifest.files),
    }


def _body(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    body = tar.extractfile(member)
    if body is None:
        raise ValueError("not a file")
    return body


def _add(tar: tarfile.TarFile, name: str, data: bytes, now: float) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o600, int(now)
    tar.addfile(info, io.BytesIO(data))


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o600
    return info


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _nobody_runs(paths: Paths) -> Iterator[None]:
    """Hold the lock that a gateway holds as long as it runs.

    Raises:
        ConfigError: one runs.
    """
    with (paths.run_dir / "gateway.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError("a gateway runs here; stop it first: lumen down") from None
        yield
