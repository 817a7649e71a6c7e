"""A small HTTP client for one provider: no redirects, no proxies, bounded answers, the key in no error."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lumen_cli.errors import CliError

_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers`: names in lower case. `seconds`: from the first byte sent to the last one received."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "").lower()


@dataclass(frozen=True, slots=True)
class VendorClient:
    """`headers` carry the key. Each call is a connection of its own, ended by `timeout` seconds of silence."""

    base_url: str
    headers: Mapping[str, str]
    timeout: float

    def __repr__(self) -> str:
        return f"VendorClient({self.base_url!r})"

    def get(self, path: str) -> Answer:
        """Raises CliError where the provider cannot be reached or does not speak HTTP."""
        return self._call("GET", path, None, "application/json")

    def post(self, path: str, body: bytes, accept: str) -> Answer:
        """As `get`."""
        return self._call("POST", path, body, accept)

    def _call(self, method: str, path: str, body: bytes | None, accept: str) -> Answer:
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            tls = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, parts.port, timeout=self.timeout, context=tls)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=self.timeout)
        begun = time.monotonic()
        try:
            headers = {"Accept": accept, "User-Agent": "lumen", **self.headers}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, f"{parts.path.rstrip('/')}/{path}", body=body, headers=headers)
            answer = connection.getresponse()
            read = answer.read(_LARGEST + 1)
            if len(read) > _LARGEST:
                raise CliError(f"{host} answers with more than {_LARGEST >> 20} MiB", "check its base_url")
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, read, time.monotonic() - begun)
        except TimeoutError:
            raise CliError(f"{host} said nothing for {self.timeout:g} s", "try again, or give --timeout") from None
        except ssl.SSLError as error:
            raise CliError(f"{host} offers no TLS that can be trusted: {error.reason}", "check its base_url") from None
        except (ConnectionResetError, BrokenPipeError):
            raise CliError(
                f"{host} closed the connection without an answer", "try again, or check its base_url"
            ) from None
        except OSError as error:
            why = error.strerror or str(error)
            raise CliError(f"{host} cannot be reached: {why}", "check its base_url and your network") from None
        except http.client.HTTPException as error:
            raise CliError(f"{host} does not speak HTTP: {type(error).__name__}", "check its base_url") from None
        finally:
            connection.close()
