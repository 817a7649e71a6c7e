"""Checks of what is kept and what runs: disk, configuration, models, run folder, port, processes, keys."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from lumen.core.errors import LumenError
from lumen_cli import gateway
from lumen_cli.health.patient import Finding, Patient
from lumen_cli.output import size

_LITTLE_DISK = 5 * 1024**3
_NO_DISK = 256 * 1024**2


def disk(patient: Patient) -> Iterator[Finding]:
    free = patient.hardware.disk_free
    if free is None:
        yield Finding("disk", "warn", f"the free space for {patient.paths.models_dir} cannot be read")
    elif free < _NO_DISK:
        yield Finding("disk", "bad", f"only {size(free)} are free", "make room: `lumen ls`, `lumen rm`")
    elif free < _LITTLE_DISK:
        yield Finding("disk", "warn", f"{size(free)} are free; most models need more", "make room, or set LUMEN_HOME")
    else:
        yield Finding("disk", "ok", f"{size(free)} free for models in {patient.paths.models_dir}")


def config(patient: Patient) -> Iterator[Finding]:
    from lumen.config.load import load
    from lumen_cli.commands.config import missing

    if not patient.config_file.exists():
        yield Finding("config", "ok", f"no file at {patient.config_file}: the defaults are in force")
        return
    try:
        found = load(patient.config_file)
    except LumenError as error:
        yield Finding("config", "bad", error.message, "mend that line; `lumen config check` tests it")
        return
    warnings = missing(found, os.environ)
    for warning in warnings:
        yield Finding("config", "warn", warning, f"set it, or change {patient.config_file}")
    if not warnings:
        yield Finding("config", "ok", f"{patient.config_file} is good")


def models(patient: Patient) -> Iterator[Finding]:
    from lumen.hub import Store, resolve

    for name, model in patient.config.models.items():
        try:
            found = resolve(model.source, patient.paths, draft=model.draft, adapters=model.adapters)
        except LumenError as error:
            yield Finding("models", "bad", f"{name}: {error.message}", "mend its source in the configuration")
            continue
        if found is None:
            yield Finding("models", "warn", f"{name} is not on this disk", f"run `lumen pull {model.source}`")
        else:
            yield from _fits(patient, name, found.path)
    store = Store(patient.paths.models_dir)
    for manifest in store.all():
        if not store.whole(manifest):
            mend = f"run `lumen pull {manifest.reference}`, or `lumen rm {manifest.name}`"
            yield Finding("models", "warn", f"files of {manifest.name} are missing", mend)


def _fits(patient: Patient, name: str, path: Path) -> Iterator[Finding]:
    from lumen.hub.pull import describe
    from lumen.hub.split import split_parts

    try:
        needs = describe(split_parts(path)).tensor_bytes
    except LumenError as error:
        yield Finding("models", "bad", f"{name}: {error.message}", "pull it again")
        return
    has = patient.hardware.memory + sum(gpu.memory for gpu in patient.hardware.gpus if gpu.vendor != "apple")
    if needs > has:
        what = f"{name} has {size(needs)} of weights and this machine {size(has)} of memory"
        yield Finding("models", "warn", what, "take a smaller quantisation or model")
    else:
        yield Finding("models", "ok", f"{name} is here and fits")


def run_folder(patient: Patient) -> Iterator[Finding]:
    folder = patient.paths.run_dir
    try:
        found = folder.lstat()
    except FileNotFoundError:
        yield Finding("run folder", "ok", f"{folder} is made by `lumen up`")
        return
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        what = f"{folder} is not a folder of yours; somebody else could answer in Lumen's place"
        yield Finding("run folder", "bad", what, "remove it, or set LUMEN_HOME")
    elif found.st_mode & 0o077:
        yield Finding("run folder", "bad", f"others may enter {folder}", f"run `chmod 700 {folder}`")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("run folder", "bad", f"{folder} cannot be written", f"run `chmod 700 {folder}`")
    else:
        yield Finding("run folder", "ok", f"{folder} is yours alone")


def port(patient: Patient) -> Iterator[Finding]:
    host, number = patient.config.server.host, patient.config.server.port
    if patient.status is not None:
        url = str(patient.status.get("url", ""))
        if urlsplit(url).port == number:
            yield Finding("port", "ok", f"our own gateway answers at {url}")
            return
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        what = f"{host}:{number} cannot be used: {error.strerror or error}"
        yield Finding("port", "bad", what, "end what uses it, or take another: `lumen up --port 5867`")
    else:
        yield Finding("port", "ok", f"{host}:{number} is free")


def leftovers(patient: Patient) -> Iterator[Finding]:
    if patient.status is not None:
        yield Finding("gateway", "ok", f"it runs (process {patient.status.get('pid')})")
        return
    record = gateway.record(patient.paths)
    if record is not None and gateway.Process(record.pid, record.started).alive():
        what = f"process {record.pid} holds the gateway's place but does not answer"
        yield Finding("gateway", "bad", what, "end it with `lumen down`, then `lumen up`")
        return
    if record is not None:
        yield Finding("gateway", "warn", "the last gateway was killed", "`lumen up` clears up after it")
    else:
        yield Finding("gateway", "ok", "none runs")
    orphans = engine_processes(patient.paths.run_dir)
    if orphans:
        numbers = ", ".join(map(str, orphans))
        yield Finding("engines", "warn", f"left over from a killed gateway: {numbers}", "`lumen up` ends them")


def engine_processes(run_dir: Path) -> list[int]:
    """Processes that a gateway of this installation started, known by the mark in their environment."""
    import psutil

    mark = hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:16]
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.environ().get("LUMEN_RUN_DIR") == mark:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return sorted(found)


def keys(patient: Patient) -> Iterator[Finding]:
    from lumen.keys import load

    fine = True
    for path in (patient.paths.keys_file, patient.paths.local_key_file):
        if path.exists() and path.stat().st_mode & 0o077:
            fine = False
            yield Finding("keys", "bad", f"others may read {path}", f"run `chmod 600 {path}`")
    try:
        count = sum(1 for key in load(patient.paths.keys_file).keys if key.revoked is None)
    except (LumenError, OSError) as error:
        yield Finding("keys", "bad", str(error), "restore the file, or remove it and add the keys again")
        return
    if fine:
        yield Finding("keys", "ok", f"{count} in force")
