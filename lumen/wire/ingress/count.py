"""`/v1/messages/count_tokens`: the answer of a tokenizer in the dialect of the Messages API. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from lumen.core.errors import LumenError, MalformedError
from lumen.core.meter import estimate_input


class _Counted(Struct):
    count: int


_decode = msgspec.json.Decoder(_Counted).decode


class CountDress:
    """See `Dress`; there is no stream of it."""

    def begin(self, request_id: str) -> None:
        """See `Dress`; the answer has no id."""

    def chunk(self, data: bytes) -> bytes:
        """See `Dress`."""
        return data

    def end(self) -> bytes:
        """See `Dress`."""
        return b""

    def failed(self, error: LumenError) -> bytes:
        """See `Dress`."""
        return b""

    def whole(self, data: bytes) -> bytes:
        """See `Dress`."""
        try:
            return _told(_decode(data).count)
        except msgspec.MsgspecError:
            raise MalformedError("The target counted no tokens.", phase="body") from None


def estimated_count(request: Any, size: int) -> bytes:
    """The answer where no target can count: as the ledger estimates what targets do not tell."""
    return _told(estimate_input(size))


def _told(tokens: int) -> bytes:
    return msgspec.json.encode({"input_tokens": tokens})
