"""Forms with files (`multipart/form-data`) as they lie in memory: where each part is, nothing copied. Pure.

Source: RFC 7578 and RFC 2046, section 5.1.
"""

from __future__ import annotations

import re

from msgspec import Struct

from lumen.core.errors import RequestError

_BOUNDARY = re.compile(r'^multipart/form-data\s*;(?:[^"]*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.I)
_NAME = re.compile(rb'(?:^|[;\s])name="((?:[^"\\\r\n]|\\.)*)"', re.I)
_FILE = re.compile(rb"[;\s]filename\*?=", re.I)
_DISPOSITION = re.compile(rb"^content-disposition:(.*)$", re.I | re.M)
_MOST_PARTS = 256
_MOST_HEAD = 8192


class Part(Struct, frozen=True, gc=False):
    """One part of a form: its bytes are `[start:end]` of the body. `file`: it is a file, not a value."""

    name: str
    file: bool
    start: int
    end: int


def boundary_of(kind: str) -> bytes:
    """The boundary that a content type names.

    Raises:
        RequestError: 415; it is no form.
    """
    found = _BOUNDARY.match(kind)
    if found is None:
        raise RequestError(
            f"Unsupported content type '{kind[:64]}'; send 'multipart/form-data'.",
            status=415,
            code="unsupported_content_type",
        )
    return (found[1] or found[2]).encode("latin-1", "replace")


def scan(body: bytes | bytearray, boundary: bytes) -> list[Part]:
    """The parts of a form, in order.

    Raises:
        RequestError: 400; it is not well-formed, or has more than 256 parts.
    """
    mark = b"\r\n--" + boundary
    if not body.startswith(mark[2:]):
        at = body.find(mark)
        if at < 0:
            raise _broken()
        at += len(mark)
    else:
        at = len(mark) - 2
    found: list[Part] = []
    while body[at : at + 2] != b"--":
        line = body.find(b"\r\n", at, at + 256)
        head_end = body.find(b"\r\n\r\n", line, line + _MOST_HEAD) if line >= 0 else -1
        end = body.find(mark, head_end + 2) if head_end >= 0 else -1
        if end < 0 or body[at:line].strip(b" \t") or len(found) == _MOST_PARTS:
            raise _broken()
        found.append(_part(bytes(body[line + 2 : head_end]), min(head_end + 4, end), end))
        at = end + len(mark)
    return found


def _part(head: bytes, start: int, end: int) -> Part:
    said = _DISPOSITION.search(head)
    name = _NAME.search(said[1]) if said is not None else None
    if said is None or name is None:
        raise _broken()
    text = name[1].replace(b"%22", b'"').decode("utf-8", "replace")
    return Part(text, _FILE.search(said[1]) is not None, start, end)


def _broken() -> RequestError:
    return RequestError("The body of your request is not a well-formed form.", code="invalid_form")
