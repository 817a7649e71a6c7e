"""Errors as OpenAI shapes them. Every refusal of the worker is one of these."""

from __future__ import annotations

import msgspec


class ApiError(Exception):
    """An answer other than 200. `retry_after`: seconds, sent as the header."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> bytes:
        """The JSON body."""
        return error_body(self.status, self.message, self.param, self.code)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """{"error": {…}} with all four of OpenAI's keys."""
    kinds = {404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def bad(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400."""
    return ApiError(400, message, param, code)


def too_long(prompt: int, limit: int, param: str) -> ApiError:
    """The 400 for a prompt that does not fit, with both counts."""
    return bad(
        f"This model's maximum context length is {limit} tokens. However, your input is {prompt} tokens long "
        "and at least one token must be left for the answer. Please shorten it.",
        param,
        "context_length_exceeded",
    )
