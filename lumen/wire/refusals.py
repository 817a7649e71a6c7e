"""What targets refuse, in every dialect: the table from a status to an error, and errors told inside an answer. Pure.

| status | what the client gets | may be tried |
| --- | --- | --- |
| 401, 403 | 502, without the target's words (they may show a key or an account) | another target |
| 429 | 429 with `Retry-After` | another target |
| 400, 404, 409, 413, 415, 422 | the same status and the target's own message | nowhere |
| 500, 502, 503, 504, 520, 529 | 502, or 503 | the same target once more |
| any other | 502 | another target |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from lumen.core.errors import LumenError, RefusedError, Retry
from lumen.core.retry import QUEUE_FULL

# Statuses after which the same target may be asked once more.
_TRANSIENT = frozenset({500, 502, 503, 504, 520, 529})
# A client's own mistake, as the target sees it: passed on, never retried.
_CLIENTS_OWN = frozenset({400, 404, 409, 413, 415, 422})
_MAX_TOLD = 2000
# No answer keeps a target out for longer than a day.
_LONGEST = 86_400.0
_REREAD = frozenset({400, 413, 422})
UNSUPPORTED = "unsupported_by_target"
LOCKED_OUT = "locked_out"
TOO_LONG = "context_length_exceeded"
FILTERED = "content_filter"
_any = msgspec.json.Decoder().decode


def refused(status: int, headers: Mapping[str, str], told: Mapping[str, str], *, trusted: bool) -> RefusedError:
    """The error for an answer that is not 200.

    Args:
        headers: names in lower case.
        told: the strings of the target's error object: `message`, `type`, `param`, `code`.
        trusted: the target is Lumen's own child; its 401 and 403 are passed on like any other.
    """
    retry_after = wait(headers)
    if status in (401, 403) and not trusted:
        return locked_out(status)
    if status == 429:
        return RefusedError(
            told.get("message") or "The target is over its rate limit.",
            phase="headers",
            upstream_status=status,
            status=429,
            type="rate_limit_error",
            code=QUEUE_FULL if trusted and told.get("code") == QUEUE_FULL else "rate_limit_exceeded",
            retry_after=retry_after,
        )
    if status in _CLIENTS_OWN:
        error = RefusedError(
            told.get("message") or f"The target refused the request with status {status}.",
            phase="headers",
            upstream_status=status,
            status=status,
            type=told.get("type") or "invalid_request_error",
            param=told.get("param"),
            retry=Retry.NEVER,
        )
        # Not the default of upstream errors: where the target names no code, there is none.
        cast(LumenError, error).code = told.get("code")
        return error
    return RefusedError(
        f"The target failed with status {status}.",
        phase="headers",
        upstream_status=status,
        status=503 if status == 503 else 502,
        retry=Retry.SAME if status in _TRANSIENT else Retry.OTHER,
        retry_after=retry_after,
    )


def reread(error: RefusedError, rules: Sequence[tuple[re.Pattern[str], str]]) -> RefusedError:
    """What a 400 (413, 422) really means, where only its words tell.

    Args:
        rules: patterns of the target's messages and the code each stands for. `UNSUPPORTED` lets another target
            try, `LOCKED_OUT` is the operator's trouble and hides the words, any other only names the error.
    """
    if error.status not in _REREAD:
        return error
    for pattern, code in rules:
        if pattern.search(error.message):
            if code == LOCKED_OUT:
                return locked_out(400)
            error.code = code
            error.status = 400
            if code == UNSUPPORTED:
                error.retry = Retry.OTHER
            return error
    return error


def locked_out(status: int, phase: str = "headers") -> RefusedError:
    """The operator's own trouble with the target: key, permission, payment. The target's words stay here."""
    return RefusedError("The target refused Lumen's credentials.", phase=phase, upstream_status=status)


def unsupported(param: str | None, why: str) -> RefusedError:
    """The target's dialect has no way to say this: another target may, and none is asked to guess."""
    subject = f"'{param}': {why}" if param else why
    return RefusedError(
        f"This target cannot serve {subject}",
        phase="encode",
        upstream_status=0,
        status=400,
        type="invalid_request_error",
        param=param,
        code=UNSUPPORTED,
        retry=Retry.OTHER,
    )


def in_answer(error: Any) -> RefusedError:
    """A failure the target reports inside an answer that began as a good one."""
    told = error if isinstance(error, dict) else {"message": str(error)}
    message = told.get("message")
    return RefusedError(
        message[:_MAX_TOLD] if isinstance(message, str) else "The target reported an error in its answer.",
        phase="stream",
        upstream_status=200,
        code=told["code"] if isinstance(told.get("code"), str) else "upstream_error",
    )


def error_object(body: bytes) -> dict[str, Any]:
    """The error object of a refusal, whatever wraps it; empty where there is none."""
    try:
        found = _any(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    inner = found.get("error", found) if isinstance(found, dict) else {}
    if isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, dict) else {}


def strings(told: Mapping[str, Any]) -> dict[str, str]:
    """Only what may be shown: strings, of bounded length."""
    return {key: value[:_MAX_TOLD] for key, value in told.items() if isinstance(value, str)}


def wait(headers: Mapping[str, str], longest: float = _LONGEST) -> float | None:
    """Seconds, at most `longest`, for which a target asks to be left alone, in whichever way; `None`: it does not.

    A `Retry-After` that is a date is taken against the answer's own `Date`, so that nobody's clock matters.
    """
    finer = seconds(headers.get("retry-after-ms"), longest * 1000)
    if finer is not None:
        return finer / 1000
    told = headers.get("retry-after")
    found = seconds(told, longest)
    if found is not None or not told:
        return found
    until, now = _date(told), _date(headers.get("date", ""))
    return None if until is None or now is None else min(max(0.0, until - now), longest)


def seconds(value: str | None, longest: float = _LONGEST) -> float | None:
    """A number of seconds as a header has it; `None` where it is none."""
    try:
        found = float(value) if value else math.nan
    except ValueError:
        return None
    return min(max(0.0, found), longest) if math.isfinite(found) else None


def _date(text: str) -> float | None:
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
