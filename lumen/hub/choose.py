"""Which files of a repository make up the wanted model. Pure.

A GGUF repository holds one model in many quantisations, each one file or split in numbered parts
(`…-00001-of-00003.gguf`), beside files that are no language model (image projectors, importance matrices). Any other
repository is one model as a folder: safetensors, tokenizer and configuration. Pickles and programs are never taken.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lumen.hub.errors import MissingError
from lumen.hub.reference import DEFAULT_QUANT, FOLDER, HubModel, safe_file_name

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\Z")
_QUANT = re.compile(
    r"(?:\A|[-._])((?:UD-)?(?:I?Q\d+(?:_[0-9A-Z]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?=\Z|[-._])",
    re.I,
)
_OF_FOLDER = re.compile(
    r"[^/]+\.(?:json|safetensors|jinja|tiktoken)\Z|(?:tokenizer\.model|vocab\.txt|merges\.txt)\Z", re.I
)
_OTHER = re.compile(r"(?:\A|[-._/])(?:mmproj|imatrix)", re.I)
# Tried in this order where nothing was asked for and the default is not there.
_PREFERRED = (
    DEFAULT_QUANT,
    "Q4_K_S",
    "Q5_K_M",
    "Q4_0",
    "IQ4_XS",
    "Q5_0",
    "Q6_K",
    "Q8_0",
    "Q3_K_M",
    "MXFP4",
    "F16",
    "BF16",
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository and what it must hash to: `git_sha1` for small files, kept in git."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def digest(self) -> str | None:
        """`sha256:HEX` or `git-sha1:HEX`; `None` where the hub promises nothing."""
        if self.sha256 is not None:
            return f"sha256:{self.sha256}"
        return f"git-sha1:{self.git_sha1}" if self.git_sha1 is not None else None


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model, first part first; `quant` as far as their name tells."""

    quant: str | None
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def choose(wanted: HubModel, files: Iterable[RemoteFile]) -> Choice:
    """The files that `wanted` means among those its repository has.

    Raises:
        MissingError: the repository has no such file; says which quantisations it has.
        BadReferenceError: a file of the repository has a name that is not safe to store.
    """
    files = list(files)
    models = choices(files)
    if wanted.quant == FOLDER or (wanted.file is None and wanted.quant is None and not models):
        return _folder(wanted, files)
    if wanted.file is not None:
        return _by_name(wanted, models)
    if wanted.quant is not None:
        return _by_quant(wanted, wanted.quant, models)
    for quant in _PREFERRED:
        found = [model for model in models if (model.quant or "").upper() == quant]
        if found:
            return _simplest(found)
    if len(models) == 1:
        return models[0]
    raise MissingError(f"{wanted.id} has no {DEFAULT_QUANT}; pick one of {_listed(models)}: hf://{wanted.id}:QUANT")


def _folder(wanted: HubModel, files: Iterable[RemoteFile]) -> Choice:
    """The model as a folder, its configuration first."""
    found = [file for file in files if _OF_FOLDER.match(file.path) and not file.path.startswith(".")]
    weights = [file for file in found if file.path.endswith(".safetensors")]
    if any(file.path == "config.json" for file in found) and weights:
        # Some repositories hold the same weights a second time, under their maker's own names.
        twice = any(file.path.startswith("model") for file in weights)
        kept = [file for file in found if not (twice and file.path.startswith("consolidated"))]
        for file in kept:
            safe_file_name(file.path)
        return Choice(FOLDER, tuple(sorted(kept, key=lambda file: (file.path != "config.json", file.path))))
    if wanted.quant == FOLDER:
        raise MissingError(f"{wanted.id} holds no safetensors with a config.json; leave out :{FOLDER.lower()}")
    raise MissingError(
        f"{wanted.id} holds no GGUF file and no safetensors; look for a repository whose name ends in -GGUF"
    )


def quant_of(path: str) -> str | None:
    """The quantisation a file name speaks of, in capitals; `None` where it does not say."""
    stem = PurePosixPath(path).name.removesuffix(".gguf").removesuffix(".GGUF")
    part = _PART.match(stem)
    found = _QUANT.findall(part.group(1) if part else stem)
    if found:
        return str(found[-1]).upper()
    folder = PurePosixPath(path).parent.name
    return folder.upper() if _QUANT.fullmatch(folder) else None


def choices(files: Iterable[RemoteFile]) -> list[Choice]:
    """Every complete GGUF model of a repository, split ones gathered."""
    whole: list[Choice] = []
    split: dict[tuple[str, int], dict[int, RemoteFile]] = {}
    for file in files:
        if not file.path.lower().endswith(".gguf") or _OTHER.search(file.path):
            continue
        safe_file_name(file.path)
        part = _PART.match(file.path[: -len(".gguf")])
        if part is None:
            whole.append(Choice(quant_of(file.path), (file,)))
        else:
            split.setdefault((part.group(1), int(part.group(3))), {})[int(part.group(2))] = file
    for (_, count), parts in split.items():
        if len(parts) == count <= 999 and set(parts) == set(range(1, count + 1)):
            ordered = tuple(parts[number] for number in range(1, count + 1))
            whole.append(Choice(quant_of(ordered[0].path), ordered))
    return whole


def _by_name(wanted: HubModel, models: Sequence[Choice]) -> Choice:
    for model in models:
        if any(file.path == wanted.file for file in model.files):
            return model
    names = [model.files[0].path for model in models]
    near = difflib.get_close_matches(wanted.file or "", names, n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise MissingError(f"{wanted.id} has no complete model in {wanted.file}{hint}")


def _by_quant(wanted: HubModel, quant: str, models: Sequence[Choice]) -> Choice:
    found = [model for model in models if (model.quant or "").upper() == quant.upper()]
    if found:
        return _simplest(found)
    raise MissingError(f"{wanted.id} has no {quant}; it has {_listed(models)}")


def _simplest(models: Sequence[Choice]) -> Choice:
    """Of several files in one quantisation the one with the plainest name; always the same one."""
    return min(models, key=lambda model: (len(model.files[0].path), model.files[0].path))


def _listed(models: Sequence[Choice]) -> str:
    names = sorted({model.quant or PurePosixPath(model.files[0].path).name for model in models})
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
