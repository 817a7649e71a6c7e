"""The hub's listing API: a repository's files at a revision, with sizes and digests.

`GET /api/models/{org}/{repo}/revision/{rev}?blobs=true` answers `sha` (the commit) and `siblings`, each with
`rfilename`, `size`, `blobId` (git's SHA-1) and, for large files, `lfs.sha256`. A file itself is
`GET /{org}/{repo}/resolve/{commit}/{path}`. Redirects of the API are never followed: it may carry a token.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from lumen.config.schema import Hub
from lumen.core.errors import ConfigError
from lumen.hub.choose import RemoteFile
from lumen.hub.errors import AccessError, MissingError, NetworkError
from lumen.hub.reference import HubModel
from lumen.hub.transport import Token, describe, host, origin

PUBLIC_HUB = "https://huggingface.co"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LARGEST_LISTING = 32 * 1024 * 1024
_MOST_FILES = 100_000
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


def endpoint_of(hub: Hub) -> str:
    """The hub's address without a trailing slash.

    Raises:
        ConfigError: `hub.endpoint` is not an http(s) address.
    """
    endpoint = (hub.endpoint or PUBLIC_HUB).rstrip("/")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("hub.endpoint must be an address like https://hub.example")
    return endpoint


def token_of(hub: Hub) -> Token | None:
    """The token, bound to the hub's origin.

    Raises:
        ConfigError: it is not written as `env:NAME`, or that variable is empty.
    """
    if hub.token is None:
        return None
    scheme, _, name = hub.token.partition(":")
    if scheme != "env" or not name:
        raise ConfigError("hub.token must be env:NAME, the environment variable that holds the token")
    endpoint = urlsplit(endpoint_of(hub))
    if endpoint.scheme != "https" and endpoint.hostname not in _LOOPBACK:
        raise ConfigError("hub.token is sent over https only; write hub.endpoint with https://")
    value = os.environ.get(name, "").strip()
    if not value or not value.isprintable():
        raise ConfigError(f"hub.token names the environment variable {name}, which is not set")
    return Token(value, origin(endpoint_of(hub)))


def file_url(endpoint: str, model: HubModel, commit: str, path: str) -> str:
    return f"{endpoint}/{model.org}/{model.repo}/resolve/{commit}/{quote(path)}"


async def listing(http: aiohttp.ClientSession, hub: Hub, model: HubModel) -> Listing:
    """The files of a repository at its revision (default: `main`), pinned to the commit that is now.

    Raises:
        MissingError, AccessError, NetworkError: with what to do about it.
    """
    endpoint, token = endpoint_of(hub), token_of(hub)
    revision = quote(model.revision or "main", safe="")
    url = f"{endpoint}/api/models/{model.org}/{model.repo}/revision/{revision}?blobs=true"
    try:
        async with http.get(
            URL(url, encoded=True), headers=token.headers_for(url) if token else {}, allow_redirects=False
        ) as response:
            _check(response, model, token is not None)
            raw = await _bounded(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise NetworkError(f"the hub {host(endpoint)} cannot be reached: {describe(error)}") from error
    return decode(raw, model)


def decode(raw: bytes, model: HubModel) -> Listing:
    """The listing in an answer's body. Pure.

    Raises:
        NetworkError: it is not what the API promises.
    """
    try:
        data = json.loads(raw)
        commit, siblings = data["sha"], data["siblings"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NetworkError(f"the hub's answer about {model.id} cannot be read") from None
    if not isinstance(commit, str) or not _COMMIT.match(commit):
        raise NetworkError(f"the hub's answer about {model.id} names no commit")
    if not isinstance(siblings, list) or len(siblings) > _MOST_FILES:
        raise NetworkError(f"the hub's answer about {model.id} has no usable list of files")
    files = tuple(file for sibling in siblings if (file := _file(sibling)) is not None)
    return Listing(commit, files)


def _file(sibling: Any) -> RemoteFile | None:
    """One entry; `None` for one without a size, which cannot be fetched safely."""
    if not isinstance(sibling, dict):
        return None
    path, size, lfs = sibling.get("rfilename"), sibling.get("size"), sibling.get("lfs")
    sha256 = sha1 = None
    if isinstance(lfs, dict):
        size = lfs.get("size", size)
        sha256 = _digest(lfs.get("sha256") or lfs.get("oid"), _SHA256)
    else:
        sha1 = _digest(sibling.get("blobId"), _SHA1)
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    return RemoteFile(path, size, sha256, sha1)


def _digest(value: Any, shape: re.Pattern[str]) -> str | None:
    if not isinstance(value, str):
        return None
    value = value.removeprefix("sha256:").lower()
    return value if shape.match(value) else None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > _LARGEST_LISTING:
            raise NetworkError("the hub's list of files is too long")
    return bytes(body)


def _check(response: aiohttp.ClientResponse, model: HubModel, has_token: bool) -> None:
    status, code = response.status, response.headers.get("X-Error-Code", "")
    if status == 200:
        return
    if 300 <= status < 400:
        raise MissingError(f"{model.id} has moved{_moved(response)}")
    if status in (401, 403):
        if code == "GatedRepo":
            raise AccessError(f"{model.id} asks for its terms to be accepted on its page, with the token's account")
        hint = "the token does not open it" if has_token else "set hub.token to env:NAME of a token"
        raise AccessError(f"{model.id} does not exist or is private; check the name, or {hint}")
    if status == 404:
        if code == "RevisionNotFound" or model.revision:
            raise MissingError(f"{model.id} has no revision {model.revision or 'main'}, or does not exist")
        raise MissingError(f"the hub has no repository {model.id}; check the name")
    if status == 429:
        raise NetworkError("the hub says: too many requests; wait a few minutes, or set hub.token")
    raise NetworkError(f"the hub answered with status {status}; try again later")


def _moved(response: aiohttp.ClientResponse) -> str:
    """` to org/repo` where the redirect stays on the hub and says so; else nothing."""
    path = urlsplit(response.headers.get("Location", "")).path
    found = re.search(r"/api/models/([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)", path)
    return f"; pull hf://{found.group(1)}" if found else ""


async def answers(endpoint: str, timeout: float) -> bool:
    """Whether a server speaks HTTP at `endpoint` within `timeout` seconds and is not broken (5xx)."""
    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, trust_env=False) as http,
            http.head(endpoint, allow_redirects=False) as response,
        ):
            return response.status < 500
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False
