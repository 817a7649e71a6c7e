"""W3C trace context: what a client's `traceparent` says, and what targets are told. Pure.

Source: https://www.w3.org/TR/trace-context/ (version 00; of later ones what they share with it).
"""

from __future__ import annotations

from msgspec import Struct

# What every version begins with is 55 characters long; version 00 is nothing else. Small hexadecimal digits become
# zeros: what then has this shape is well formed. Every request with a trace comes by here, and this takes half as long
# as a regular expression.
_LONG = 55
_SHAPE = b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00"
_DIGITS = b"0123456789abcdef"
_SHAPED = bytes(ord("0") if byte in _DIGITS else byte for byte in range(256))
_ODD = frozenset("13579bdf")
_MOST_STATE = 512
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_MASK = (1 << 64) - 1


class Context(Struct, frozen=True, gc=False):
    """Where a request stands in a trace.

    `trace`: 32 hexadecimal digits. `parent`: the span that it belongs to, 16 of them, or empty. `span`: the number of
    its own span; `None`: it has none, and targets are told what the client said. `state`: the client's `tracestate`.
    """

    trace: str
    parent: str
    span: int | None
    sampled: bool
    state: str = ""

    def id(self, number: int) -> int:
        """The number of the `number`-th span of this request; its own is 0. Never zero."""
        assert self.span is not None
        return (self.span + number) & _MASK or _MASK >> 1

    def header(self, number: int) -> bytes:
        """The lines that the target of the span with this number is sent."""
        span = self.parent if self.span is None else f"{self.id(number):016x}"
        line = f"traceparent: 00-{self.trace}-{span}-{'01' if self.sampled else '00'}\r\n"
        return (f"{line}tracestate: {self.state}\r\n" if self.state else line).encode()


def passed_on(parent: str, state: str) -> Context | None:
    """What a client said, for targets as it stands; `None` where it said nothing that can be understood."""
    if len(parent) != _LONG:
        # Later versions may go on after another dash.
        if parent[_LONG : _LONG + 1] != "-" or parent.startswith("00"):
            return None
        parent = parent[:_LONG]
    if not parent.isascii() or parent.encode().translate(_SHAPED) != _SHAPE:
        return None
    trace, span = parent[3:35], parent[36:52]
    if trace == _NO_TRACE or span == _NO_SPAN or parent[:2] == "ff":
        return None
    # Of ASCII, what is printable is space to tilde.
    if state and (len(state) > _MOST_STATE or not state.isascii() or not state.isprintable()):
        state = ""
    return Context(trace, span, None, parent[54] in _ODD, state)


def begun(given: Context | None, numbers: int, sampled: bool) -> Context:
    """The context of a request that has spans of its own.

    Args:
        given: what the client said; its decision to sample is followed.
        numbers: 192 random bits. `sampled`: the decision where there is no client's.
    """
    span = numbers & _MASK or 1
    if given is not None:
        return Context(given.trace, given.parent, span, given.sampled, given.state)
    return Context(f"{numbers >> 64 or 1:032x}", "", span, sampled)
