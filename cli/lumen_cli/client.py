"""The admin API of a running gateway: over its UNIX socket, or over TLS where `--url` names one elsewhere.

The only way a command reaches the gateway.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumen_cli import remote
from lumen_cli.errors import CliError, NotRunning

if TYPE_CHECKING:
    import asyncio

_LARGEST_ANSWER = 16 * 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("lumen", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Here:
    """The way to this machine's own gateway."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        return _UnixConnection(self._path, timeout)

    async def open(self, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        import asyncio

        return await asyncio.open_unix_connection(str(self._path), limit=limit)

    def headers(self) -> dict[str, str]:
        return {"Host": "lumen"}

    def renew(self) -> bool:
        return False

    def gone(self) -> CliError:
        return NotRunning()

    def unknown(self) -> CliError:
        return CliError("the gateway does not let you in", "its admin socket belongs to another user")


class Admin:
    """One gateway's admin API. Each call is a connection, ended by `timeout` seconds of silence.

    `path`: the socket of this machine's gateway, which it is unless the command line chose another.

    Raises:
        CliError: nobody signed on at the one that was chosen.
    """

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        afar = remote.door()
        # Whether it is the gateway of another machine, whose files and processes are not here.
        self.afar = afar is not None
        self._door = afar or _Here(path)
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """Raises NotRunning where nothing listens, CliError for any answer but 2xx."""
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """As `get`; `body` is sent as JSON."""
        return self._call("POST", path, body if body is not None else {})

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/admin/status")
        return answer

    def status_or_none(self) -> dict[str, Any] | None:
        """The status, or `None` where no gateway answers."""
        try:
            return self.status()
        except NotRunning:
            return None

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """What goes on, frame by frame, until the gateway ends the connection.

        Raises:
            NotRunning: nothing listens, or it does not any more.
        """
        import asyncio

        # A token that is about to end is renewed, which may take a moment.
        headers = await asyncio.to_thread(self._door.headers)
        try:
            reader, writer = await asyncio.wait_for(self._door.open(_LARGEST_ANSWER), self._timeout)
        except OSError:
            raise self._door.gone() from None
        try:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"GET /admin/events HTTP/1.1\r\n{lines}\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._timeout)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise self._door.unknown()
            held = b""
            # The body comes in chunks of HTTP, and its lines need not end where they do.
            while size := int(await asyncio.wait_for(reader.readline(), self._timeout), 16):
                held += (await asyncio.wait_for(reader.readexactly(size + 2), self._timeout))[:-2]
                *frames, held = held.split(b"\n")
                for line in frames:
                    yield json.loads(line)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise self._door.gone() from None
        finally:
            # Not with a farewell of TLS, which would be waited for and outlive a command that ends here.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        status, raw = self._answer(method, path, body)
        if status == 401 and self._door.renew():
            status, raw = self._answer(method, path, body)
        if status == 401:
            raise self._door.unknown()
        return _read(status, raw)

    def _answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        headers = self._door.headers()
        connection = self._door.connection(self._timeout)
        try:
            sent = None if body is None else json.dumps(body).encode()
            if sent is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, body=sent, headers=headers)
            answer = connection.getresponse()
            raw = answer.read(_LARGEST_ANSWER)
            if answer.length:
                raise http.client.IncompleteRead(raw)
        except (FileNotFoundError, ConnectionRefusedError, socket.gaierror):
            raise self._door.gone() from None
        except ssl.SSLError as error:
            raise CliError(
                f"TLS with the gateway failed: {error.reason or error}", "see `lumen login --help`"
            ) from None
        except TimeoutError:
            raise CliError(
                f"the gateway did not answer within {self._timeout:g} s",
                "see `lumen logs`, or end it with `lumen down`",
            ) from None
        except (http.client.HTTPException, ConnectionError):
            # The process ended between accepting the call and answering it.
            raise self._door.gone() from None
        finally:
            connection.close()
        return answer.status, raw


def _read(status: int, raw: bytes) -> Any:
    try:
        data = json.loads(raw) if raw else {}
    except ValueError:
        raise CliError("the gateway's answer is not JSON", "restart it with `lumen restart`") from None
    if 200 <= status < 300:
        return data
    error = data.get("error") if isinstance(data, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    raise CliError(str(message or f"the gateway answered with status {status}"))
