"""An emulated provider: `python -m tests.emulator --port 9000`. Speaks all three dialects; nothing it says is random.

| base URL | dialect |
| --- | --- |
| `…/v1` | OpenAI (chat, completions, embeddings) and Anthropic Messages |
| `…/v1` | rerank, moderations, images, audio, tokens: see `more.py` |
| `…/v1beta` | Gemini `generateContent`, `streamGenerateContent`, `batchEmbedContents` |

The model's name is the script, `[kind-][prefill-]script[-N…]`. Kinds: `text`, `tool` (a call to the first tool
offered), `json`, `think` (reasons first). Prefill: `startover` (the default: a partial assistant message is
ignored), `noprefill` (400), `prefill` (goes on), `echo` (`sentence` alone: repeats it, then goes on), `anchor` (repeats
the last 40 characters, then goes on).

`words-N`    N words, one a piece.              `seeded-N`   N words that hang on the request's seed.
`sentence`   what stands behind the first colon of the first message, or `ok`; a picture is its type and sum.
`slow-N-MS-C` N words (of C characters each), MS milliseconds apart.
`wrong-N`    N words; the usage claims ten times as many.
`status-S`   HTTP status S, for ever.           `once-S`     status S the first time, then words.
`limit-S`    429 with Retry-After: S (2).       `flap-K-M`   K times 503, M times words, and again (1, 1).
`filter`     the content filter refuses.        `context`    the prompt is longer than the window.
`html`       200 with HTML.                     `reset`      closes before any header.
`silent`     takes the request, never answers.  `headers`    headers, then silence.
`cut-N`      resets after N words.              `drop-N`     closes in good order after N words.
`stall-N`    N words, then silence.             `errin-N`    N words, then an error inside the stream.
`garbage-N`  N words, then no JSON.             `truncated-N` N words, then half an event, and the end.
`endless-N`  N words, then one endless line.    `nofinish-N` ends without finish reason.
`agent`      calls the first tool offered for Paris, tells its weather when the result is there; JSON on request.
`nodone-N`   everything but the last words (`[DONE]`, `message_stop`).
`nocount-N`  N words and a finish reason, and no counts.  `cutcount-N` the same, then resets.

Faults in the middle of a stream befall whole answers too, in their body. `GET /served` lists what was served and
what it costs: every word that was sent is billed, and so is the prompt, even where the answer broke off.
A socket that is accepted and never read is no script: see `half_open.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from tests.emulator.dialects import PROMPT_TOKENS, Anthropic, Gemini, OpenAI, Speaker, event
from tests.emulator.more import More
from tests.emulator.script import Script, conversation, pieces, settled

_SILENCE = 30.0
_ENDLESS = 64 * 1024 * 1024


@dataclass
class Served:
    """One answer and what it is billed for; `complete`: its last word was sent."""

    model: str
    dialect: str
    stream: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    complete: bool = False


class Emulator:
    """Counts what it was asked and sent, so that tests can compare."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.served: list[Served] = []
        self.words_sent = 0
        self.open = 0
        self.closed_early = 0
        self._seen: dict[str, int] = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self.openai)
        app.router.add_post("/v1/completions", self.openai)
        app.router.add_post("/v1/embeddings", self.embed)
        app.router.add_post("/v1/messages", self.anthropic)
        app.router.add_post("/v1beta/models/{model}:{verb}", self.gemini)
        self.more = More(self._note)
        self.more.routes(app)
        app.router.add_get("/served", self.bill)
        return app

    async def bill(self, request: web.Request) -> web.Response:
        return web.json_response([asdict(one) for one in self.served])

    async def embed(self, request: web.Request) -> web.Response:
        body = await request.json()
        self._note(request, body)
        many = 1 if isinstance(body["input"], str) else len(body["input"])
        data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.25]} for i in range(many)]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def openai(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        script = settled(body["model"], body)
        return await self._serve(request, OpenAI(body["model"], body, script), script, bool(body.get("stream")))

    async def anthropic(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        script = settled(body["model"], body)
        return await self._serve(request, Anthropic(body["model"], body, script), script, bool(body.get("stream")))

    async def gemini(self, request: web.Request) -> web.StreamResponse:
        body, model = await request.json(), request.match_info["model"]
        if request.match_info["verb"] == "batchEmbedContents":
            self._note(request, body)
            return web.json_response({"embeddings": [{"values": [0.5, 0.25]} for _ in body["requests"]]})
        script, stream = settled(model, body), request.match_info["verb"] == "streamGenerateContent"
        return await self._serve(request, Gemini(model, body, script), script, stream)

    def _note(self, request: web.Request, body: dict[str, Any]) -> None:
        self.requests.append(body)
        self.headers.append(dict(request.headers))

    async def _serve(self, request: web.Request, speaker: Speaker, script: Script, stream: bool) -> web.StreamResponse:
        self._note(request, speaker.body)
        seen = self._seen[speaker.model] = self._seen.get(speaker.model, 0) + 1
        messages = conversation(speaker.body)
        if script.name == "silent":
            await asyncio.sleep(_SILENCE)
        if script.name == "reset":
            _transport(request).abort()
            return web.Response()
        if refused := _refusal(speaker, script, seen, messages, stream):
            return refused
        seed = speaker.body.get("seed", speaker.body.get("generationConfig", {}).get("seed"))
        said = pieces(script, seed, messages)
        served = Served(speaker.model, type(speaker).__name__.lower(), stream, PROMPT_TOKENS)
        self.served.append(served)
        self.open += 1
        try:
            play = self._stream if stream else self._whole
            return await play(request, speaker, script, said, served)
        except (ConnectionError, asyncio.CancelledError):
            self.closed_early += 1
            raise
        finally:
            self.open -= 1

    async def _whole(
        self, request: web.Request, speaker: Speaker, script: Script, said: Sequence[str], served: Served
    ) -> web.StreamResponse:
        if script.name == "slow":
            await asyncio.sleep(len(said) * script.number(1, 0) / 1000)
        claimed = len(said) * (10 if script.name == "wrong" else 1)
        body = json.dumps(speaker.whole(said, claimed, finished=script.name != "nofinish")).encode()
        served.completion_tokens = len(said) * speaker.many
        if script.name == "errin":
            return web.json_response(speaker.refusal(503, "scripted", "overloaded"))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        half = body[: len(body) // 2]
        if script.name == "truncated":
            body = half
        elif script.name == "garbage":
            body = b"{not json}"
        response.content_length = _ENDLESS * 2 if script.name == "endless" else len(body)
        await response.prepare(request)
        if script.name in ("headers", "stall"):
            await response.write(half if script.name == "stall" else b"")
            await asyncio.sleep(_SILENCE)
        elif script.name in ("cut", "drop"):
            await response.write(half)
            _end(request, script)
        elif script.name == "endless":
            await _endless(response)
        else:
            await response.write(body)
            served.complete = script.name not in ("garbage", "truncated", "nofinish")
        return response

    async def _stream(
        self, request: web.Request, speaker: Speaker, script: Script, said: Sequence[str], served: Served
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if script.name == "headers":
            await response.write(b"")
            await asyncio.sleep(_SILENCE)
        if start := speaker.start():
            await response.write(start)
        for text in said[speaker.before : len(said) - (script.total - script.sent)]:
            for index in range(speaker.many):
                if data := speaker.piece(text, index):
                    await response.write(data)
                self.words_sent += 1
                served.completion_tokens += 1
            if script.name == "slow":
                await asyncio.sleep(script.number(1, 0) / 1000)
        if script.total > script.sent:
            await _break(request, response, speaker, script)
            return response
        if script.name != "nofinish":
            claimed = len(said) * (10 if script.name == "wrong" else 1)
            await response.write(speaker.close(None if script.name in ("nocount", "cutcount") else claimed))
            if script.name == "cutcount":
                _transport(request).abort()
            elif script.name != "nodone" and (last := speaker.done()):
                await response.write(last)
        served.complete = script.name != "nofinish"
        return response


def _refusal(
    speaker: Speaker, script: Script, seen: int, messages: Sequence[tuple[str, str]], stream: bool
) -> web.Response | None:
    """The answer of a script that does not begin to answer; `seen`: requests for this model, with this one."""

    def told(status: int, code: str = "scripted", **headers: str) -> web.Response:
        body = speaker.refusal(status, f"scripted {status}", code)
        return web.json_response(body, status=status, headers=headers)

    match script.name:
        case "status":
            return told(script.number(0, 500))
        case "once" if seen == 1:
            return told(script.number(0, 500))
        case "flap" if (seen - 1) % (script.number(0, 1) + script.number(1, 1)) < script.number(0, 1):
            return told(503)
        case "limit":
            return told(429, **{"Retry-After": str(script.number(0, 2))})
        case "context":
            return told(400, "context_length_exceeded")
        case "filter":
            if isinstance(speaker, Gemini):
                return _blocked(speaker, stream)
            return told(400, "content_filter")
        case "html":
            return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
    if script.prefill == "noprefill" and messages and messages[-1][0] in ("assistant", "model"):
        return told(400, "prefill")
    return None


def _blocked(speaker: Gemini, stream: bool) -> web.Response:
    """How this API tells of a refused prompt: with a good status, in the form that was asked for."""
    if stream:
        return web.Response(body=event(speaker.blocked()), content_type="text/event-stream")
    return web.json_response(speaker.blocked())


async def _break(request: web.Request, response: web.StreamResponse, speaker: Speaker, script: Script) -> None:
    """What becomes of a stream that does not end well."""
    if script.name in ("cut", "drop"):
        _end(request, script)
    elif script.name == "stall":
        await asyncio.sleep(_SILENCE)
    elif script.name == "errin":
        await response.write(speaker.failure())
    elif script.name == "garbage":
        await response.write(b"data: {not json}\n\n")
    elif script.name == "truncated":
        cut = speaker.piece("word", 0) or speaker.close(1)
        await response.write(cut[: len(cut) // 2])
    elif script.name == "endless":
        await _endless(response)


async def _endless(response: web.StreamResponse) -> None:
    """One line without an end, up to a bound no reader should let it reach."""
    await response.write(b"data: ")
    for _ in range(_ENDLESS // 65536):
        await response.write(b"x" * 65536)


def _end(request: web.Request, script: Script) -> None:
    if script.name == "cut":
        _transport(request).abort()
    else:
        _transport(request).close()


def _transport(request: web.Request) -> asyncio.Transport:
    assert request.transport is not None
    return request.transport
