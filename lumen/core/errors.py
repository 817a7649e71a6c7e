"""Every error of Lumen. Each knows its status, its source, and whether another try may help.

LumenError
├── RequestError            the client's own: 4xx, never retried
├── UpstreamError           a target's: knows the phase it broke in and what may be tried next
│   ├── ConnectError        no connection, nothing was sent
│   ├── SilentError         a limit passed without an answer (headers, first token, gap, total)
│   ├── BrokenError         the connection ended in the middle
│   ├── RefusedError        the target answered with an error of its own
│   └── MalformedError      the answer is not what its dialect says (HTML, bad JSON, no finish reason)
├── UnavailableError        nothing can serve this now: 503
└── ConfigError             a configuration file cannot be used: file, line, what to write instead
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class Retry(Enum):
    """What may be tried after an error."""

    SAME = "same"  # the same target once more, then another
    OTHER = "other"  # another target only
    NEVER = "never"  # the answer would be the same everywhere


class LumenError(Exception):
    """Base of all. `message` is safe to show a client: no key, path, address or prompt in it."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        # What the request had come to when it failed, as headers of the answer.
        self.headers: dict[str, str] = {}
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type
        if code is not None:
            self.code = code

    def body(self) -> dict[str, Any]:
        """The OpenAI error object: all four keys, `code` a string or null."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class RequestError(LumenError):
    """The request cannot be served as it is written."""

    status = 400
    type = "invalid_request_error"
    code = None


class UpstreamError(LumenError):
    """A target failed. `phase`: connect, headers, first_token, stream, body."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    retry = Retry.OTHER

    def __init__(self, message: str, *, phase: str, retry: Retry | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.phase = phase
        if retry is not None:
            self.retry = retry


class ConnectError(UpstreamError):
    retry = Retry.SAME
    code = "upstream_unreachable"


class SilentError(UpstreamError):
    status = 504
    code = "upstream_timeout"


class BrokenError(UpstreamError):
    retry = Retry.SAME
    code = "upstream_disconnected"


class RefusedError(UpstreamError):
    """The target's own answer; `upstream_status` is what it said."""

    def __init__(self, message: str, *, upstream_status: int, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.upstream_status = upstream_status


class MalformedError(UpstreamError):
    code = "upstream_malformed"


class UnavailableError(LumenError):
    status = 503
    type = "server_error"
    code = "unavailable"


class WakingError(UnavailableError):
    """A local model starts or wakes; it is on its way, and nothing is wrong with it."""

    code = "model_not_ready"


class ConfigError(LumenError):
    """`where` is `file:line` of the offending key."""

    code = "bad_config"

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where
