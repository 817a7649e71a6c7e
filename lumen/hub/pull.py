"""From a reference to a verified model in the store."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from lumen.config.schema import Hub
from lumen.hub import client, gguf, sizing
from lumen.hub.choose import choose
from lumen.hub.download import Download, free_bytes, require_space
from lumen.hub.errors import BadModelFileError, BadReferenceError, MissingError
from lumen.hub.part import bytes_here
from lumen.hub.progress import Meter, Progress
from lumen.hub.reference import (
    FOLDER,
    Builtin,
    HubModel,
    LocalFile,
    Reference,
    WebFile,
    parse,
    safe_file_name,
    with_revision,
)
from lumen.hub.split import split_parts
from lumen.hub.store import Manifest, Store, StoredFile, absolute, is_folder
from lumen.hub.transport import session
from lumen.hub.wanted import Fetched, Limits, Wanted


@dataclass(frozen=True, slots=True)
class Puller:
    """Pulls into one store. `free`: free bytes of the disk a folder is on."""

    store: Store
    hub: Hub
    limits: Limits = field(default_factory=Limits)
    free: Callable[[Path], int] = free_bytes

    async def pull(
        self,
        text: str,
        *,
        revision: str | None = None,
        name: str | None = None,
        progress: Progress | None = None,
    ) -> Manifest:
        """Fetch what a reference means (or find it here already) and write its manifest.

        Raises:
            HubError, ConfigError: what is wrong and what to do.
            OSError: the disk cannot be written.
        """
        reference = with_revision(parse(text), revision)
        if isinstance(reference, Builtin):
            raise BadReferenceError(f"{reference} ships with Lumen; there is nothing to pull")
        meter = Meter(progress, time.monotonic)
        if isinstance(reference, LocalFile):
            manifest = await asyncio.to_thread(self._register, reference, name)
        else:
            async with session(self.limits.stall, self.limits.connect, self.hub.connections) as http:
                if isinstance(reference, HubModel):
                    manifest = await self._from_hub(http, reference, name, meter)
                else:
                    manifest = await self._from_web(http, reference, name, meter)
        meter.finish()
        return manifest

    def _register(self, reference: LocalFile, name: str | None) -> Manifest:
        """A file of the user's own stays where it is; the store only learns of it."""
        path = absolute(reference)
        if is_folder(path):
            parts = [path / "config.json", *sorted(path.glob("*.safetensors"))]
            inside = tuple(StoredFile(str(part), part.stat().st_size, None) for part in parts)
            where = LocalFile(str(path))
            return self._record(where, Manifest(name or path.name, str(where), inside, _today(), quant=FOLDER))
        if not path.is_file():
            raise MissingError(f"there is no file {path.name} at that path")
        files = tuple(StoredFile(str(part), part.stat().st_size, None) for part in split_parts(path))
        where = LocalFile(str(path))
        return self._record(where, Manifest(name or path.stem, str(where), files, _today()))

    async def _from_hub(
        self, http: aiohttp.ClientSession, reference: HubModel, name: str | None, meter: Meter
    ) -> Manifest:
        listing = await client.listing(http, self.hub, reference)
        choice = choose(reference, listing.files)
        meter.total = choice.size
        endpoint, token = client.endpoint_of(self.hub), client.token_of(self.hub)
        folder = self.store.folder_of(reference, listing.commit)
        wanted = [
            Wanted(
                client.file_url(endpoint, reference, listing.commit, remote.path),
                folder / safe_file_name(remote.path),
                remote.size,
                remote.digest,
                token,
            )
            for remote in choice.files
        ]
        await asyncio.to_thread(self._check_space, wanted)
        files = [self._stored(await self._one(http, file, meter)) for file in wanted]
        title = name or reference.repo
        found = Manifest(title, str(reference), tuple(files), _today(), listing.commit, choice.quant)
        return await asyncio.to_thread(self._record, reference, found)

    async def _from_web(
        self, http: aiohttp.ClientSession, reference: WebFile, name: str | None, meter: Meter
    ) -> Manifest:
        target = self.store.folder_of(reference, None) / reference.filename
        digest = f"sha256:{reference.sha256}" if reference.sha256 else None
        fetched = await self._one(http, Wanted(reference.url, target, digest=digest), meter)
        title = name or Path(reference.filename).stem
        found = Manifest(title, str(reference), (self._stored(fetched),), _today(), etag=fetched.etag)
        return await asyncio.to_thread(self._record, reference, found)

    async def _one(self, http: aiohttp.ClientSession, wanted: Wanted, meter: Meter) -> Fetched:
        """One file: already recorded, linked from a twin, or downloaded."""
        kind, _, digest = (wanted.digest or "").partition(":")
        if kind == "sha256" and wanted.size is not None:
            twin = await asyncio.to_thread(self._adopt, wanted.target, digest, wanted.size)
            if twin:
                meter.already(wanted.size)
                return Fetched(wanted.target, wanted.size, digest, None)
        return await Download(
            http,
            wanted,
            meter,
            connections=self.hub.connections,
            limits=self.limits,
            free=self.free,
        ).run()

    def _check_space(self, wanted: Sequence[Wanted]) -> None:
        """Refuse a model that will not fit as a whole before its first part is fetched."""
        missing = 0
        for file in wanted:
            kind, _, digest = (file.digest or "").partition(":")
            if kind != "sha256" or self.store.twin(digest, file.size or 0) is None:
                missing += (file.size or 0) - bytes_here(file.target, file.size or 0)
        self.store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_space("the model", missing, self.limits.spare, self.free(self.store.folder))

    def _adopt(self, target: Path, sha256: str, size: int) -> bool:
        """Use a file that was verified before, by a second name for it where the disk can."""
        twin = self.store.twin(sha256, size)
        if twin is None:
            return False
        if twin == target:
            return True
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):
            target.unlink(missing_ok=True)
            os.link(twin, target)
            return True
        return False

    def _record(self, reference: Reference, found: Manifest) -> Manifest:
        """Prove that the files are a model, give it a name of its own, and write it down."""
        try:
            paths = [self.store.path_of(file) for file in found.files]
            told = prove_folder(paths) if found.quant == FOLDER else describe(paths).quantisation
        except BadModelFileError:
            if not isinstance(reference, LocalFile):
                for file in found.files:
                    self.store.path_of(file).unlink(missing_ok=True)
            raise
        quant = found.quant or told
        name = self.store.free_name(found.name, reference, quant)
        manifest = replace(found, name=name, quant=quant)
        self.store.add(manifest)
        return manifest

    def _stored(self, fetched: Fetched) -> StoredFile:
        return StoredFile(str(fetched.path.relative_to(self.store.folder)), fetched.size, fetched.sha256)


def prove_folder(files: list[Path]) -> str:
    """That a folder's files are a model: its configuration names one, and its weights begin as safetensors do.

    Raises:
        BadModelFileError: they are not.
        OSError: they cannot be read.
    """
    try:
        config = json.loads(files[0].read_bytes())
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not (config.get("architectures") or config.get("model_type")):
        raise BadModelFileError(f"{files[0].name} names no model")
    weights = [file for file in files if file.suffix == ".safetensors"]
    for file in weights:
        # Eight bytes of length, then that many bytes of JSON.
        with file.open("rb") as opened:
            head = opened.read(9)
        if len(head) < 9 or head[8:] != b"{" or int.from_bytes(head[:8], "little") > file.stat().st_size:
            raise BadModelFileError(f"{file.name} is not a whole file of safetensors")
    if not weights:
        raise BadModelFileError("the folder holds no safetensors")
    return FOLDER


def describe(files: list[Path]) -> sizing.Facts:
    """What a model is, from its file or the parts of it.

    Raises:
        BadModelFileError: the file is not a whole GGUF model.
        OSError: it cannot be read.
    """
    return sizing.facts([gguf.read(path) for path in files])


def _today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
