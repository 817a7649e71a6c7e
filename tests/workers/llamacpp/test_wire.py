"""Tokens that go past the loop and tokens that go by way of it arrive in order, whole, and in their own connection."""

from __future__ import annotations

import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.llamacpp.sequence import Event, Outbox
from lumen.workers.llamacpp.wire import Wire


def text(event: Event) -> bytes | None:
    return None if event.finish else b"<%d>" % event.tokens[0] * 400


def unchunked(data: bytes) -> bytes:
    out = b""
    while data:
        size, data = data.split(b"\r\n", 1)
        n = int(size, 16)
        assert data[n : n + 2] == b"\r\n"
        out, data = out + data[:n], data[n + 2 :]
    return out


class Pair:
    """A connection with small buffers, an outbox, and a loop that is driven by hand."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        for one in (self.near, self.far):
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.wire = Wire(self.near.fileno(), text)
        self.outbox = Outbox(lambda _event: None, lambda: None, 1000)
        self.outbox.line = self.wire
        self.posted: list[Event] = []
        self.owed = b""
        self.got = b""

    def emit(self, number: int, direct: bool) -> bool:
        event = Event(0, tokens=[number], finish=None if direct else "stop")
        if self.outbox.past(event):
            return True
        self.outbox.sent += 1
        self.posted.append(event)
        return False

    def loop(self) -> None:
        """What the loop does: give what was posted to the transport, which writes as the socket takes it."""
        for event in self.posted:
            data = b"<%d>" % event.tokens[0] * 400
            self.owed += event.rest or b"%x\r\n%b\r\n" % (len(data), data)
        self.outbox.taken += len(self.posted)
        self.posted = []
        try:
            self.owed = self.owed[self.near.send(self.owed) :] if self.owed else b""
        except BlockingIOError:
            return
        if not self.owed:
            self.outbox.written = self.outbox.taken

    def read(self) -> None:
        try:
            self.got += self.far.recv(3000)
        except BlockingIOError:
            return

    def close(self) -> None:
        self.wire.close()
        self.near.close()
        self.far.close()


@given(st.lists(st.sampled_from(["direct", "direct", "direct", "posted", "loop", "read"]), max_size=80))
def test_everything_arrives_once_and_in_order(moves: list[str]) -> None:
    pair = Pair()
    number = 0
    for move in moves:
        if move in ("direct", "posted"):
            pair.emit(number, move == "direct")
            number += 1
        else:
            getattr(pair, move)()
    while pair.posted or pair.owed:
        pair.read()
        pair.loop()
    pair.near.close()
    pair.wire.close()
    while chunk := pair.far.recv(65536):
        pair.got += chunk
    pair.close()
    assert unchunked(pair.got) == b"".join(b"<%d>" % n * 400 for n in range(number))


def test_while_the_loop_owes_something_nothing_overtakes_it() -> None:
    pair = Pair()
    assert pair.emit(0, True)
    assert not pair.emit(1, False)
    assert not pair.emit(2, True)
    while pair.posted or pair.owed:
        pair.loop()
        pair.read()
    pair.read()
    assert pair.emit(3, True)
    pair.close()


def test_after_the_end_nothing_is_written_to_whoever_has_the_number_now() -> None:
    pair = Pair()
    number = pair.wire._fd
    read, write = os.pipe()
    pair.wire.close()
    os.dup2(write, number)
    assert not pair.emit(0, True)
    assert pair.posted[0].rest == b""
    os.set_blocking(read, False)
    try:
        assert not os.read(read, 1)
    except BlockingIOError:
        assert pair.posted
    for one in {read, write, number}:
        os.close(one)
    pair.close()


def test_a_client_that_has_left_is_the_loops_to_find() -> None:
    pair = Pair()
    pair.far.close()
    assert not pair.emit(0, True)
    assert pair.posted[0].rest == b""
    pair.close()
