"""The admin API of a running gateway, over its UNIX socket. The only way a command reaches the gateway."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lumen_cli.errors import CliError, NotRunning

_LARGEST_ANSWER = 16 * 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("lumen", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Admin:
    """One gateway's admin API. Each call is a connection, ended by `timeout` seconds of silence."""

    def __init__(self, path: Path, timeout: float = 10.0) -> None:
        self._path = path
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

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What goes on, frame by frame, until the gateway ends the connection.

        Raises:
            NotRunning: nothing listens, or it does not any more.
        """
        import asyncio

        try:
            reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LARGEST_ANSWER)
        except OSError:
            raise NotRunning from None
        try:
            writer.write(b"GET /admin/events HTTP/1.1\r\nHost: lumen\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self._timeout)
            held = b""
            # The body comes in chunks of HTTP, and its lines need not end where they do.
            while size := int(await asyncio.wait_for(reader.readline(), self._timeout), 16):
                held += (await asyncio.wait_for(reader.readexactly(size + 2), self._timeout))[:-2]
                *lines, held = held.split(b"\n")
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise NotRunning from None
        finally:
            writer.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        connection = _UnixConnection(self._path, self._timeout)
        try:
            sent = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if sent is not None else {}
            connection.request(method, path, body=sent, headers=headers)
            answer = connection.getresponse()
            raw = answer.read(_LARGEST_ANSWER)
            if answer.length:
                raise http.client.IncompleteRead(raw)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning from None
        except TimeoutError:
            raise CliError(
                f"the gateway did not answer within {self._timeout:g} s",
                "see `lumen logs`, or end it with `lumen down`",
            ) from None
        except (http.client.HTTPException, ConnectionError):
            # The process ended between accepting the call and answering it.
            raise NotRunning from None
        finally:
            connection.close()
        return _read(answer.status, raw)


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
