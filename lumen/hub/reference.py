"""What the text after `source:` or `lumen pull` means. Pure: looks at no disk and no network.

builtin:tiny                           a model that ships with Lumen
./model.gguf  ~/m.gguf  /m.gguf  file:m.gguf  file:///m.gguf      or a folder with safetensors
https://host/model.gguf[#sha256=HEX]   one file anywhere
hf://org/repo[:QUANT][@REVISION]       a repository on the hub; QUANT safetensors: the folder of it that vLLM serves
hf://org/repo/file.gguf[@REVISION]     one file of it
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from lumen.hub.errors import BadReferenceError

BUILTINS = ("tiny", "tiny-draft")
DEFAULT_QUANT = "Q4_K_M"
# Not a quantisation of one GGUF file, but the model as its folder of safetensors and what belongs to them.
FOLDER = "SAFETENSORS"

_SCHEMES = {"builtin": "builtin:", "file": "file:", "http": "http://", "https": "https://", "hf": "hf://"}
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?\Z")
_QUANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,30}[A-Za-z0-9])?\Z")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LONGEST = 2048


@dataclass(frozen=True, slots=True)
class Builtin:
    """A model inside the package: one of `BUILTINS`."""

    name: str

    def __str__(self) -> str:
        return f"builtin:{self.name}"


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A GGUF file or model folder of the user's own. `path` is as written: `~` and relative parts are not resolved."""

    path: str

    def __str__(self) -> str:
        return self.path if _looks_like_a_path(self.path) else f"file:{quote(self.path)}"


@dataclass(frozen=True, slots=True)
class WebFile:
    """One file at an http(s) address; `filename` is safe to use, `sha256` what it must hash to."""

    url: str
    filename: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository on the hub, optionally narrowed to a quantisation or to one file of it."""

    org: str
    repo: str
    quant: str | None = None
    revision: str | None = None
    file: str | None = None

    @property
    def id(self) -> str:
        return f"{self.org}/{self.repo}"

    def __str__(self) -> str:
        file = f"/{self.file}" if self.file else ""
        quant = f":{self.quant}" if self.quant else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.org}/{self.repo}{file}{quant}{revision}"


Reference = Builtin | LocalFile | WebFile | HubModel


def parse(text: str) -> Reference:
    """Read a reference.

    Raises:
        BadReferenceError: what is wrong with it and what was probably meant.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise BadReferenceError("an empty or unprintable model reference; write one like hf://org/repo:Q4_K_M")
    lower = text.lower()
    if lower.startswith("builtin:"):
        return _builtin(text[len("builtin:") :])
    if lower.startswith("hf://"):
        return _hub(text[len("hf://") :], text)
    if lower.startswith(("http://", "https://")):
        return _web(text)
    if lower.startswith("file:"):
        return _file(text)
    if _looks_like_a_path(text):
        return LocalFile(text)
    raise BadReferenceError(f"cannot tell what {text!r} is; {_suggest(text)}")


def with_revision(reference: Reference, revision: str | None) -> Reference:
    """The same reference at `revision`; `None` leaves it alone.

    Raises:
        BadReferenceError: the reference has no revisions, names another one, or the revision is not one.
    """
    if revision is None:
        return reference
    if not isinstance(reference, HubModel):
        raise BadReferenceError(f"--revision is for hf:// references; {reference} has no revisions")
    if reference.revision not in (None, revision):
        raise BadReferenceError(f"{reference} and --revision {revision} name two revisions; give one")
    return replace(reference, revision=_revision(revision))


def safe_file_name(remote: str) -> str:
    """A remote file's path inside its repository, proven to stay inside the folder it is joined to.

    Raises:
        BadReferenceError: it is absolute, or has `..`, a backslash, a drive or unprintable characters.
    """
    parts = remote.split("/")
    bad = (
        not remote
        or len(remote) > 512
        or "\\" in remote
        or any(ord(c) < 32 or ord(c) == 127 for c in remote)
        or any(part in ("", ".", "..") or len(part.encode()) > 240 or part.startswith(".") for part in parts)
        or ":" in parts[0]
    )
    if bad:
        raise BadReferenceError(f"the remote file name {remote[:80]!r} is not safe to store")
    return str(PurePosixPath(*parts))


def _builtin(name: str) -> Builtin:
    if name in BUILTINS:
        return Builtin(name)
    near = difflib.get_close_matches(name, BUILTINS, n=1, cutoff=0.4) or ["tiny"]
    raise BadReferenceError(f"no built-in model is called {name!r}; did you mean builtin:{near[0]}?")


def _file(text: str) -> LocalFile:
    rest = text[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost") or not slash:
            raise BadReferenceError(f"{text!r} names a host; write file:///absolute/path.gguf")
        rest = "/" + path
    path = unquote(rest)
    if not path or "\0" in path:
        raise BadReferenceError(f"{text!r} names no file; write file:/absolute/path.gguf")
    return LocalFile(path)


def _web(text: str) -> WebFile:
    try:
        parts = urlsplit(text)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise BadReferenceError(f"{text!r} is not a usable address: {error}") from None
    if not host:
        raise BadReferenceError(f"{text!r} names no host")
    if parts.username or parts.password:
        raise BadReferenceError("an address with a password in it is refused; serve the file without one")
    filename = PurePosixPath(unquote(parts.path)).name
    if not filename.lower().endswith(".gguf"):
        raise BadReferenceError(f"{text!r} does not end in .gguf; {_page_hint(host, parts.path)}")
    if "/blob/" in parts.path:
        raise BadReferenceError("that is the page about a file; write /resolve/ in place of /blob/")
    digest = parts.fragment.removeprefix("sha256=").lower()
    if parts.fragment and not _SHA256.match(digest):
        raise BadReferenceError(f"{text!r}: after # only sha256=<64 hex digits> is understood")
    return WebFile(parts._replace(fragment="").geturl(), safe_file_name(filename), digest or None)


def _page_hint(host: str, path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 2 and _NAME.match(parts[0]) and _NAME.match(parts[1]) and "." in host:
        return f"for a hub repository write hf://{parts[0]}/{parts[1]}"
    return "give the address of a GGUF file itself"


def _hub(rest: str, text: str) -> HubModel:
    rest, at, revision = rest.partition("@")
    if at and not revision:
        raise BadReferenceError(f"{text!r} ends in @ without a revision")
    rest, colon, quant = rest.partition(":")
    parts = rest.split("/")
    if len(parts) < 2 or not all(parts[:2]):
        raise BadReferenceError(f"{text!r} needs an organisation and a repository: hf://org/repo[:quant][@revision]")
    org, repo = parts[:2]
    for part in (org, repo):
        if not _NAME.match(part) or ".." in part or "--" in part:
            raise BadReferenceError(f"{part!r} in {text!r} is not a name that a hub gives")
    file = "/".join(parts[2:]) or None
    if file is not None:
        file = _hub_file(file, quant if colon else None, text)
    if colon and not _QUANT.match(quant):
        raise BadReferenceError(f"{quant!r} is not a quantisation; write one like hf://{org}/{repo}:{DEFAULT_QUANT}")
    return HubModel(org, repo, quant.upper() or None, _revision(revision) if at else None, file)


def _hub_file(file: str, quant: str | None, text: str) -> str:
    if quant is not None:
        raise BadReferenceError(f"{text!r} names both a file and a quantisation; one is enough")
    if not file.lower().endswith(".gguf"):
        raise BadReferenceError(f"{text!r}: after org/repo only a .gguf file may follow, or :{DEFAULT_QUANT}")
    return safe_file_name(file)


def _revision(text: str) -> str:
    if not _REVISION.match(text) or ".." in text or "//" in text:
        raise BadReferenceError(f"{text!r} is not a revision; write a branch, a tag or a commit")
    return text


def _looks_like_a_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~")) or text.lower().endswith(".gguf")


def _suggest(text: str) -> str:
    head, colon, rest = text.partition(":")
    if colon and "/" in rest:
        near = difflib.get_close_matches(head.lower(), _SCHEMES, n=1, cutoff=0.5) or ["hf"]
        return f"did you mean {_SCHEMES[near[0]]}{rest.strip().lstrip('/')}?"
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w./-]+)?", text):
        return f"did you mean hf://{text}?"
    word = text.lower().removeprefix("builtin").strip("- _:")
    near = difflib.get_close_matches(word, BUILTINS, n=1, cutoff=0.5)
    if near:
        return f"did you mean builtin:{near[0]}?"
    return "write builtin:tiny, a path to a .gguf file, an https:// address, or hf://org/repo[:quant]"
