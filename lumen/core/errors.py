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

# Codes and types of errors that targets tell, as their documentation has them.
_WORDS = (
    "upstream_error upstream_timeout rate_limit_exceeded rate_limit_error context_length_exceeded "
    "content_filter unsupported_by_target locked_out model_not_found model_not_ready queue_full "
    "invalid_request_error invalid_api_key insufficient_quota invalid_value invalid_type invalid_json "
    "missing_required_parameter unsupported_parameter unsupported_value unknown_parameter "
    "string_above_max_length array_above_max_length integer_above_max_value integer_below_min_value "
    "invalid_prompt invalid_image not_found_error not_found request_too_large overloaded_error overloaded "
    "api_error authentication_error permission_error billing_error timeout_error server_error busy "
    "bad_request internal_error unavailable INVALID_ARGUMENT NOT_FOUND RESOURCE_EXHAUSTED "
    "FAILED_PRECONDITION OUT_OF_RANGE "
)
_KNOWN = frozenset(_WORDS.split())


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

    @property
    def outcome(self) -> str:
        """What it is counted and written down as: a word of Lumen's own, never one that somebody made up."""
        return self.code or self.type

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

    @property
    def outcome(self) -> str:
        """The target chose the words: those not known here may hold anything, what it was asked included."""
        return next((word for word in (self.code, self.type) if word in _KNOWN), "upstream_refused")


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


def let_go(error: BaseException | None) -> None:
    """Have an error that was dealt with let go of the frames that it came through, and of the errors it came from.

    They hold the answer as far as it came, and are held by it in turn: only a search for cycles would find them.
    """
    while error is not None:
        before = error.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None
        error = before
