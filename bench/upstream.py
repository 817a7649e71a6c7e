"""The emulated upstream of the gateway benchmark: fixed answers, as little work as Python can do.

`python -m bench.upstream --port N`. A model named `stream` in the request's body does not matter; the request's own
`"stream":true` decides. 64 words, whole or one chunk each `--gap` milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

WORDS = [f"word{i} " for i in range(64)]
USAGE = {"prompt_tokens": 12, "completion_tokens": 64, "total_tokens": 76}


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    body = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return _framed(json.dumps(body))


def _framed(payload: str) -> bytes:
    data = f"data: {payload}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_message = {"role": "assistant", "content": "".join(WORDS)}
_choice = {"index": 0, "message": _message, "finish_reason": "stop"}
_body = json.dumps(
    {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [_choice], "usage": USAGE}
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_body) + _body
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = [_chunk({"role": "assistant", "content": WORDS[0]}), *(_chunk({"content": w}) for w in WORDS[1:])]
END = _chunk({}, "stop") + _framed("[DONE]") + b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Understands just enough HTTP for a well-behaved keep-alive client."""

    gap = 0.01

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, rest = self.buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if b'"stream":true' in rest[:length]:
            self.transport.write(HEAD + CHUNKS[0])
            self._later(1)
        else:
            self.transport.write(WHOLE)

    def _later(self, index: int) -> None:
        self.timer = asyncio.get_running_loop().call_later(self.gap, self._next, index)

    def _next(self, index: int) -> None:
        if index < len(CHUNKS):
            self.transport.write(CHUNKS[index])
            self._later(index + 1)
        else:
            self.transport.write(END)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()


async def main(port: int, gap: float) -> None:
    Upstream.gap = gap
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gap", type=float, default=10.0, help="milliseconds between chunks")
    given = parser.parse_args()
    uvloop.run(main(given.port, given.gap / 1000))
