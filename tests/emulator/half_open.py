"""A port that takes connections and never reads from them: no byte of a request is ever acknowledged as read."""

from __future__ import annotations

import socket
from types import TracebackType


class HalfOpen:
    """Listens on loopback. The kernel completes the handshakes; nobody ever takes them up."""

    def __init__(self, port: int = 0) -> None:
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen(128)
        self.port = int(self._listening.getsockname()[1])

    def close(self) -> None:
        self._listening.close()

    def __enter__(self) -> HalfOpen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
