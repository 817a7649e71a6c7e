from __future__ import annotations

import re

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


# The grammar of the recommendation, as it stands there.
GRAMMAR = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\n\r]*)?", re.ASCII)
digits = st.text("0123456789abcdef", min_size=1, max_size=40)


def near(text: str) -> st.SearchStrategy[str]:
    """What differs from it in a few characters, or in length."""
    anything = st.characters() | st.sampled_from("0123456789abcdefABCDEFg-_ \t\0+xé٣\n")
    edit = st.tuples(st.integers(0, 60), st.integers(0, 2), st.text(anything, max_size=2))

    def edited(edits: list[tuple[int, int, str]]) -> str:
        made = text
        for at, cut, more in edits:
            made = made[:at] + more + made[at + cut :]
        return made

    return st.lists(edit, max_size=3).map(edited)


@given(
    near(GIVEN)
    | near(f"cc-{TRACE}-{SPAN}-00-more")
    | st.builds("{}-{}-{}-{}".format, digits, digits, digits, digits)
    | st.builds("{:02x}-{:032x}-{:016x}-{:02x}".format, *(st.integers(0, 16**n - 1) for n in (2, 32, 16, 2)))
    | st.builds("{:02x}-{:032x}-{:016x}-01".format, st.integers(0, 255), st.integers(0, 1), st.integers(0, 1))
)
def test_what_the_grammar_takes_is_taken_and_nothing_else(parent: str) -> None:
    wanted = GRAMMAR.fullmatch(parent)
    if wanted is not None:
        version, trace, span, flags, more = wanted.groups()
        if version == "ff" or (version == "00" and more) or not int(trace, 16) or not int(span, 16):
            wanted = None
    found = passed_on(parent, "")
    assert (found is None) == (wanted is None)
    if found is not None:
        assert (found.trace, found.parent, found.sampled) == (trace, span, bool(int(flags, 16) & 1))


@given(st.text(max_size=600) | st.text(st.characters(min_codepoint=0x18, max_codepoint=0x88), max_size=520))
def test_a_state_goes_on_whole_or_not_at_all(state: str) -> None:
    context = passed_on(GIVEN, state)
    good = re.fullmatch(r"[\x20-\x7e]{1,512}", state) is not None
    assert context is not None and context.state == (state if good else "")


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
