"""The models on this disk: one manifest a model, files laid out by where they came from.

    models/manifests/NAME.json
    models/hf/ORG--REPO/COMMIT/FILE
    models/web/HASH-OF-ADDRESS/FILE

A manifest is written last, in one step, after every file it names was verified. Files of the user's own are
named by a manifest with their absolute path and are never moved or deleted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lumen.engines.base import ModelFiles
from lumen.files import locked, write_atomic
from lumen.hub.errors import BadReferenceError, MissingError
from lumen.hub.reference import DEFAULT_QUANT, FOLDER, Builtin, HubModel, LocalFile, Reference, parse
from lumen.paths import Paths

_VERSION = 1
_LARGEST = 4 * 1024 * 1024
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`path`: inside the models folder, or absolute for a file of the user's own. `sha256`: `None` there."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One model here. `pulled`: UTC, ISO 8601. `quant`: the quantisation that was chosen."""

    name: str
    reference: str
    files: tuple[StoredFile, ...]
    pulled: str
    commit: str | None = None
    quant: str | None = None
    etag: str | None = None

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class Store:
    """The models folder. Reads never fail over one damaged manifest: it is left out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifests = folder / "manifests"

    def path_of(self, file: StoredFile) -> Path:
        return self.folder / file.path  # an absolute path replaces the folder

    def all(self) -> list[Manifest]:
        """Every model, by name."""
        if not self._manifests.is_dir():
            return []
        found = (self._read(path) for path in self._manifests.glob("*.json"))
        return sorted((manifest for manifest in found if manifest is not None), key=lambda manifest: manifest.name)

    def get(self, name: str) -> Manifest | None:
        return self._read(self._manifests / f"{name}.json") if _NAME.match(name) else None

    def find(self, reference: Reference) -> Manifest | None:
        """The model that a reference means: the most exact match, then the newest."""
        found = [manifest for manifest in self.all() if matches(manifest, reference)]
        return max(found, key=lambda m: (m.reference == str(reference), m.pulled), default=None)

    def whole(self, manifest: Manifest) -> bool:
        """Whether every file is there in its full size."""
        for file in manifest.files:
            try:
                if self.path_of(file).stat().st_size != file.size:
                    return False
            except OSError:
                return False
        return bool(manifest.files)

    def add(self, manifest: Manifest) -> None:
        """Write a manifest, replacing the one of that name; files that nobody names any more are removed.

        Raises:
            TimeoutError, OSError: the folder is in use or cannot be written.
        """
        if not _NAME.match(manifest.name):
            raise BadReferenceError(f"{manifest.name!r} is no name for a model: small letters, digits, . _ -")
        with locked(self._manifests):
            before = self.get(manifest.name)
            data = json.dumps({"version": _VERSION, **asdict(manifest)}, indent=2) + "\n"
            write_atomic(self._manifests / f"{manifest.name}.json", data.encode())
            if before is not None:
                self._sweep(before.files)

    def remove(self, name: str) -> int:
        """Forget a model and delete its files that no other model uses. Returns the bytes freed.

        Raises:
            MissingError: there is no such model.
            TimeoutError, OSError: the folder is in use or cannot be written.
        """
        with locked(self._manifests):
            manifest = self.get(name)
            if manifest is None:
                raise MissingError(f"no model is called {name!r}; `lumen ls` lists them")
            (self._manifests / f"{name}.json").unlink()
            return self._sweep(manifest.files)

    def free_name(self, wanted: str, reference: Reference, quant: str | None) -> str:
        """`wanted`, or a variation of it where another model has that name already."""
        base = slug(wanted)
        for name in _variations(base, quant):
            owner = self.get(name)
            if owner is None or owner.reference == str(reference):
                return name
        raise BadReferenceError(f"too many models are called {base}; choose another with --name")

    def folder_of(self, reference: Reference, commit: str | None) -> Path:
        """Where a reference's files go."""
        if isinstance(reference, HubModel) and commit:
            return self.folder / "hf" / f"{reference.org}--{reference.repo}" / commit
        digest = hashlib.sha256(str(reference).encode()).hexdigest()[:16]
        return self.folder / "web" / digest

    def twin(self, sha256: str, size: int) -> Path | None:
        """A verified file with the same bytes, from another revision or repository."""
        for manifest in self.all():
            for file in manifest.files:
                path = self.path_of(file)
                same = (file.sha256, file.size) == (sha256, size) and not Path(file.path).is_absolute()
                if same and path.is_file() and path.stat().st_size == size:
                    return path
        return None

    def _sweep(self, files: Iterable[StoredFile]) -> int:
        used = {file.path for manifest in self.all() for file in manifest.files}
        freed = 0
        for file in files:
            path = self.path_of(file)
            if file.path in used or Path(file.path).is_absolute() or not path.is_file():
                continue
            shared = path.stat().st_nlink > 1
            path.unlink()
            path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
            freed += 0 if shared else file.size
            self._prune(path.parent)
        return freed

    def _prune(self, folder: Path) -> None:
        """Remove folders that are empty now, up to the models folder."""
        with suppress(OSError):
            while folder != self.folder and self.folder in folder.parents:
                folder.rmdir()
                folder = folder.parent

    def _read(self, path: Path) -> Manifest | None:
        try:
            with path.open("rb") as file:
                return decode(file.read(_LARGEST))
        except OSError:
            return None


def decode(text: bytes) -> Manifest | None:
    """A manifest from its JSON; `None` if it is none, or names files outside the store. Pure."""
    try:
        data = json.loads(text)
        if data.pop("version") != _VERSION:
            return None
        files = tuple(StoredFile(**file) for file in data.pop("files"))
        manifest = Manifest(files=files, **data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    strings = (manifest.name, manifest.reference, manifest.pulled, *(file.path for file in files))
    sound = all(isinstance(text, str) for text in strings) and all(isinstance(f.size, int) for f in files)
    if not sound or not _NAME.match(manifest.name) or any(".." in Path(file.path).parts for file in files):
        return None
    return manifest


def matches(manifest: Manifest, reference: Reference) -> bool:
    """Whether a model here is what a reference means. Pure but for `~` and relative paths."""
    try:
        own = parse(manifest.reference)
    except BadReferenceError:
        return False
    if isinstance(own, HubModel) and isinstance(reference, HubModel):
        return _same_hub_model(manifest, own, reference)
    if isinstance(own, LocalFile) and isinstance(reference, LocalFile):
        return absolute(own) == absolute(reference)
    return own == reference


def _same_hub_model(manifest: Manifest, own: HubModel, reference: HubModel) -> bool:
    if own.id.lower() != reference.id.lower():
        return False
    revision = reference.revision or "main"
    if revision not in (own.revision or "main", manifest.commit):
        return False
    if reference.file is not None or own.file is not None:
        return reference.file == own.file
    if reference.quant is not None:
        return reference.quant == manifest.quant
    return own.quant is None or manifest.quant == DEFAULT_QUANT


def absolute(reference: LocalFile, base: Path | None = None) -> Path:
    """The file's own path: `~` expanded, relative parts against `base` (default: the working folder)."""
    return ((base or Path.cwd()) / Path(reference.path).expanduser()).resolve()


def slug(text: str) -> str:
    """A name made of small letters, digits, `.`, `_` and `-`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return re.sub(r"[-._]gguf\Z", "", name)[:80].strip("-._") or "model"


def _variations(base: str, quant: str | None) -> Iterable[str]:
    yield base
    if quant:
        yield slug(f"{base}-{quant}")
    yield from (f"{base}-{number}" for number in range(2, 100))


def resolve(
    source: str,
    paths: Paths,
    *,
    draft: str | None = None,
    adapters: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> ModelFiles | None:
    """The files of a model, of its draft model and its adapters, if they are on this disk; `None` where some are not.

    `base`: the folder that relative paths are meant from, such as the configuration's own.

    Raises:
        BadReferenceError: a reference cannot be read.
    """
    found = _locate(parse(source), paths, base)
    second = _locate(parse(draft), paths, base) if draft is not None else None
    worn = {name: adapter(text, paths, base) for name, text in (adapters or {}).items()}
    there = {name: path for name, path in worn.items() if path is not None}
    if found is None or (draft is not None and second is None) or len(there) < len(worn):
        return None
    return ModelFiles(found.name, found.path, None if second is None else second.path, there)


def adapter(source: str, paths: Paths, base: Path | None = None) -> Path | None:
    """A LoRA adapter's file (GGUF) or folder (PEFT's), if it is on this disk.

    Raises:
        BadReferenceError: the reference cannot be read.
    """
    reference = parse(source)
    if isinstance(reference, LocalFile):
        path = absolute(reference, base)
        return path if path.is_file() or (path / "adapter_config.json").is_file() else None
    found = _locate(reference, paths, base)
    return None if found is None else found.path


def _locate(reference: Reference, paths: Paths, base: Path | None) -> ModelFiles | None:
    if isinstance(reference, Builtin):
        from lumen import tiny

        path = tiny.DRAFT if reference.name == "tiny-draft" else tiny.MODEL
        return ModelFiles(reference.name, path) if path.is_file() else None
    if isinstance(reference, LocalFile):
        path = absolute(reference, base)
        if is_folder(path):
            return ModelFiles(slug(path.name), path)
        return ModelFiles(slug(path.stem), path) if path.is_file() else None
    store = Store(paths.models_dir)
    manifest = store.find(reference)
    if manifest is None or not store.whole(manifest):
        return None
    return files_of(manifest, store)


def files_of(manifest: Manifest, store: Store) -> ModelFiles:
    """What an engine is given of a model in the store: its first file, or its folder."""
    first = store.path_of(manifest.files[0])
    return ModelFiles(manifest.name, first.parent if manifest.quant == FOLDER else first)


def is_folder(path: Path) -> bool:
    """Whether a path is a model as a folder, in Hugging Face's format."""
    return (path / "config.json").is_file()
