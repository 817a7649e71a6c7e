"""Forms, taken apart where they lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.errors import RequestError
from lumen.wire.multipart import boundary_of, scan
from lumen.wire.passed import Received, parse_form

NAMES = st.text("abcdefgh_[]", min_size=1, max_size=12)
VALUES = st.binary(max_size=200).filter(lambda data: b"--edge" not in data)


def form(parts: list[tuple[str, bytes, bool]]) -> bytes:
    made = b""
    for name, data, file in parts:
        more = b'; filename="a.bin"\r\nContent-Type: application/octet-stream' if file else b""
        made += b'--edge\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + more + b"\r\n\r\n"
        made += data + b"\r\n"
    return made + b"--edge--\r\n"


@given(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=6))
def test_every_part_is_found_where_it_is(parts: list[tuple[str, bytes, bool]]) -> None:
    body = form(parts)
    found = [(part.name, body[part.start : part.end], part.file) for part in scan(body, b"edge")]
    assert found == parts


@given(st.binary(max_size=300))
def test_whatever_comes_is_taken_apart_or_refused(body: bytes) -> None:
    for data in (body, b"--edge" + body, b"--edge\r\n" + body + b"\r\n--edge--"):
        try:
            for part in scan(data, b"edge"):
                assert 0 <= part.start <= part.end <= len(data)
        except RequestError as error:
            assert error.status == 400


def test_boundaries() -> None:
    assert boundary_of("multipart/form-data; boundary=edge") == b"edge"
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="an edge"') == b"an edge"
    for kind in ("", "application/json", "multipart/form-data", "multipart/form-data; boundary="):
        with pytest.raises(RequestError) as caught:
            boundary_of(kind)
        assert caught.value.status == 415


def test_only_the_models_name_is_another() -> None:
    body = form([("model", b"route", False), ("file", b"\r\n--edg\0", True), ("n", b"2", False)])
    given = Received(bytearray(body), "multipart/form-data; boundary=edge")
    request = parse_form(given, "file", audio=True)
    assert (request.model, request.fields, request.files) == ("route", {"model": "route", "n": "2"}, ["file"])
    sent = b"".join(request.upload.named("another"))
    assert sent == body.replace(b"route", b"another")
    twice = form([("model", b"a", False), ("model", b"b", False), ("file", b"", True)])
    with pytest.raises(RequestError, match="model"):
        parse_form(Received(bytearray(twice), given.kind), "file", audio=True)
