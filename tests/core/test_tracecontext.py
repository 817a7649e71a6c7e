from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.tracecontext import begun, passed_on

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def test_what_a_client_said_goes_on_as_it_stands() -> None:
    context = passed_on(GIVEN, "a=1,b=2")
    assert context is not None
    assert context.header(1) == f"traceparent: {GIVEN}\r\ntracestate: a=1,b=2\r\n".encode()
    # A later version may say more; what is passed on is what is understood.
    later = passed_on(f"cc-{TRACE}-{SPAN}-00-what-the-future-brings", "")
    assert later is not None and later.header(1) == f"traceparent: 00-{TRACE}-{SPAN}-00\r\n".encode()


@pytest.mark.parametrize(
    "wrong",
    [
        "", "x", GIVEN.upper(), GIVEN + "-more", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01\r\nX-Evil: 1", f" {GIVEN}",
        f"00-{TRACE[:-1]}é-{SPAN}-01",
    ],
)  # fmt: skip
def test_what_is_no_context_is_none(wrong: str) -> None:
    assert passed_on(wrong, "") is None


@given(st.text(max_size=600), st.text(max_size=600))
def test_no_header_can_be_made_that_ends_its_line(parent: str, state: str) -> None:
    for context in (passed_on(parent, state), passed_on(GIVEN, state)):
        if context is not None:
            lines = context.header(1).split(b"\r\n")
            assert lines[-1] == b"" and all(line.startswith((b"traceparent: ", b"tracestate: ")) for line in lines[:-1])


@given(st.integers(0, 2**192 - 1), st.booleans())
def test_a_request_with_spans_of_its_own_follows_its_client(numbers: int, sampled: bool) -> None:
    alone = begun(None, numbers, sampled)
    assert (len(alone.trace), alone.parent, alone.sampled) == (32, "", sampled)
    below = begun(passed_on(GIVEN, "a=1"), numbers, sampled)
    assert (below.trace, below.parent, below.sampled) == (TRACE, SPAN, True)
    ids = {below.id(number) for number in range(50)}
    assert len(ids) == 50 and all(0 < one < 2**64 for one in ids)
    # What a target is told can be understood, and names the span of its try.
    told = passed_on(below.header(2).decode().split("\r\n")[0].removeprefix("traceparent: "), "")
    assert told is not None and (told.trace, int(told.parent, 16)) == (TRACE, below.id(2))
