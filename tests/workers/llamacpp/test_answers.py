"""Answers put together from their parts."""

from __future__ import annotations

from lumen.workers.llamacpp.answers import Parts
from lumen.workers.llamacpp.chat.output import Delta, ToolDelta


class Piece(str):
    """Text that is too long to be copied again and again."""

    def __add__(self, other: str) -> str:
        raise AssertionError("a piece was added to another")


def test_long_arguments_are_put_together_once() -> None:
    parts = Parts()
    parts.add([Delta(tool=ToolDelta(0, "a", "add", "")), Delta(tool=ToolDelta(1, "b", "sub", None))])
    for _ in range(3):
        parts.add([Delta(tool=ToolDelta(0, arguments=Piece("x"))), Delta(tool=ToolDelta(1, arguments=Piece("y")))])
    assert parts.tools == [ToolDelta(0, "a", "add", "xxx"), ToolDelta(1, "b", "sub", "yyy")]


def test_a_call_that_has_but_begun_has_no_arguments_yet() -> None:
    parts = Parts()
    parts.add([Delta(tool=ToolDelta(0, "a", "add"))])
    assert parts.tools == [ToolDelta(0, "a", "add", None)]
