"""HTTP for model files: who is asked, what is followed, what a status means.

A token goes only to the origin it belongs to. Redirects are followed by hand and only for file contents (a
hub hands those over to a content network), never from https to http, and the token stays behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from lumen.hub.errors import AccessError, MissingError, NetworkError

_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
USER_AGENT = "lumen"


@dataclass(frozen=True, slots=True)
class Token:
    """A secret and the one origin that may see it."""

    value: str
    origin: str

    def headers_for(self, url: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.value}"} if origin(url) == self.origin else {}

    def __repr__(self) -> str:
        return f"Token(origin={self.origin!r})"


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer to a file request. `linked_*`: what the hub said of the file before it redirected."""

    response: aiohttp.ClientResponse
    url: str
    linked_size: int | None = None
    linked_etag: str | None = None


class RetryableError(Exception):
    """The same request may succeed later. `wait`: seconds the server asks for."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def origin(url: str) -> str:
    """`scheme://host:port`, the port always written."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def session(stall: float, connect: float, connections: int) -> aiohttp.ClientSession:
    """A client without cookies, proxies or decompression; `stall` seconds without a byte end a connection."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=stall),
        connector=aiohttp.TCPConnector(limit=connections + 2),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


async def open_file(http: aiohttp.ClientSession, url: str, token: Token | None, byte_range: str | None) -> Opened:
    """GET a file, following up to five redirects. The caller releases the response.

    Raises:
        RetryableError: no connection, a broken one, or a status that may pass (408, 429, 5xx).
        MissingError, AccessError, NetworkError: it will not get better by itself.
    """
    size: int | None = None
    etag: str | None = None
    for _ in range(_HOPS + 1):
        headers = token.headers_for(url) if token else {}
        if byte_range:
            headers["Range"] = byte_range
        response = await _get(http, url, headers)
        if response.status not in _REDIRECTS:
            _check(response, url)
            return Opened(response, url, size, etag)
        linked = response.headers.get("X-Linked-Size", "")
        size = int(linked) if linked.isdigit() and len(linked) < 16 else size
        etag = response.headers.get("X-Linked-Etag", etag)
        target = response.headers.get("Location", "")
        response.release()
        url = _next(url, target)
    raise NetworkError(f"{host(url)} sends the download in circles")


async def _get(http: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
    try:
        # Signed addresses break when they are quoted a second time, hence encoded=True.
        return await http.get(URL(url, encoded=True), headers=headers, allow_redirects=False)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RetryableError(f"{host(url)}: {describe(error)}") from error


def _next(url: str, target: str) -> str:
    if not target:
        raise NetworkError(f"{host(url)} redirects without saying where to")
    new = urljoin(url, target)
    parts = urlsplit(new)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NetworkError(f"{host(url)} redirects to something that is no web address")
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise NetworkError(f"{host(url)} redirects from https to http; refused")
    return new


def _check(response: aiohttp.ClientResponse, url: str) -> None:
    status = response.status
    if status in (200, 206, 416):
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("", "identity"):
            response.close()
            raise NetworkError(f"{host(url)} insists on compressing the file ({encoding}); use another address")
        return
    wait = retry_after(response)
    response.close()
    if status in (401, 403):
        raise AccessError(f"{host(url)} refuses the file (status {status}); set hub.token to env:NAME of a token")
    if status in (404, 410):
        raise MissingError(f"{host(url)} has no such file (status {status})")
    if status in (408, 425, 429) or status >= 500:
        raise RetryableError(f"{host(url)} answered with status {status}", wait)
    raise NetworkError(f"{host(url)} answered with status {status}")


def retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds the server asks to wait: a number, or a date compared with the server's own clock."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit() and len(text) < 9:
        return float(text)
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(response.headers.get("Date", ""))
        return max(0.0, (then - now).total_seconds())
    except (TypeError, ValueError):
        return None


def host(url: str) -> str:
    """The host of an address, for messages: the rest may carry a signature."""
    return urlsplit(url).hostname or "the server"


def describe(error: BaseException) -> str:
    """A connection failure in words, without addresses."""
    if isinstance(error, TimeoutError):
        return "no bytes for too long"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name is not known to DNS"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "cannot connect"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return "the connection broke"
    return type(error).__name__
