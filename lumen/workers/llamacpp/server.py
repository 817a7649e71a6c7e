"""HTTP: parse → submit → stream. Runs on the asyncio loop; the engine thread speaks to it once a step."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import HttpVersion11, web

from lumen.workers.llamacpp import caller, metrics, slumber
from lumen.workers.llamacpp.adapters import Adapter
from lumen.workers.llamacpp.answers import Head, Stream, Usage, Whole
from lumen.workers.llamacpp.caller import Caller
from lumen.workers.llamacpp.context import Floats
from lumen.workers.llamacpp.embed import EmbedJob, normalise
from lumen.workers.llamacpp.engine import Engine
from lumen.workers.llamacpp.errors import ApiError, bad, error_body, too_long
from lumen.workers.llamacpp.fields import Fields, check_ids, decode_body
from lumen.workers.llamacpp.inbox import Events, Inbox, deliver
from lumen.workers.llamacpp.prepare import Prepared
from lumen.workers.llamacpp.protocol import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    parse_chat,
    parse_completion,
    parse_embedding,
)
from lumen.workers.llamacpp.sequence import Event, Outbox
from lumen.workers.llamacpp.turns import Backlog, Turn, Turns, again
from lumen.workers.llamacpp.wire import shortcut
from lumen.workers.llamacpp.worker import Worker

log = logging.getLogger("lumen.worker.server")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_LIMIT = 32 * 1024 * 1024
OUTBOX_LIMIT = 64
"""Events one request may have waiting to be written before its sequences pause."""

_INLINE = 16 * 1024
"""Bodies up to this size are prepared on the loop (well under a millisecond); larger ones on a thread."""

_NUMBERS = 8192
"""Numbers of embeddings up to which they are written on the loop (about a millisecond); more of them on a thread."""

_SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class Server:
    """The routes of one worker. `draining`: running answers go on, new ones are refused."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._engine: Engine | None = None
        self._started = int(time.time())
        self.draining = False
        self.in_flight = 0
        self._of: Counter[str] = Counter()  # answers of each caller that wait or run
        self._turns = Turns(worker.settings.slots)
        self._backlog = Backlog()

    def start(self, on_death: Callable[[], None]) -> Engine:
        """Start the engine with this loop as the one its events go to."""
        loop = asyncio.get_running_loop()

        def post(events: list[tuple[Outbox, Event]]) -> None:
            loop.call_soon_threadsafe(deliver, events)

        def died() -> None:
            loop.call_soon_threadsafe(on_death)

        self._engine = self._worker.start(post, died)
        return self._engine

    def app(self) -> web.Application:
        """The application: its routes as a list."""
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_errors])
        app.router.add_get("/health", self.health)
        app.router.add_get("/props", self.props)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self.models)
        slumber.add_routes(app, lambda: self._engine)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/embeddings", self.embeddings)
        app.router.add_post("/tokenize", self.tokenize)
        app.router.add_post("/detokenize", self.detokenize)
        return app

    # Reading routes

    async def health(self, _request: web.Request) -> web.Response:
        alive = self._engine is not None and self._engine.alive
        counters = self._worker.counters
        age = time.monotonic() - counters.last_step if counters.running else 0.0
        body = {"status": "ok" if alive else "dead", "draining": self.draining, "step_age_s": round(age, 3)}
        return _json(body, 200 if alive else 503)

    async def props(self, _request: web.Request) -> web.Response:
        return _json(self._worker.props())

    async def metrics(self, _request: web.Request) -> web.Response:
        text = metrics.render(self._worker.counters, time.monotonic())
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def models(self, _request: web.Request) -> web.Response:
        known = {"object": "model", "created": self._started, "owned_by": "lumen"}
        return _json({"object": "list", "data": [{"id": name, **known} for name in self._worker.names]})

    # Generation

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body, size, adapter = await self._body(request)
        return await self._generate(request, parse_chat(body, self._worker.model.vocab.size), size, adapter)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body, size, adapter = await self._body(request)
        return await self._generate(request, parse_completion(body, self._worker.model.vocab.size), size, adapter)

    async def _body(self, request: web.Request) -> tuple[dict[str, Any], int, Adapter]:
        """What is asked, how long it is, and of which adapter."""
        data = await request.read()
        body = decode_body(data)
        adapter = self._worker.names.find(body.get("model"))
        if self.draining:
            raise ApiError(503, "The worker is shutting down.", code="shutting_down", retry_after=1)
        return body, len(data), adapter

    async def _generate(
        self, request: web.Request, wanted: ChatRequest | CompletionRequest, size: int, adapter: Adapter
    ) -> web.StreamResponse:
        engine = self._engine
        if engine is None or not self._worker.generates:
            raise bad("This model serves embeddings only.", "model")
        inbox = Inbox(engine.wake, OUTBOX_LIMIT, whole=not wanted.common.stream)
        outbox = inbox.outbox
        who = caller.read(request.headers.get(caller.HEADER), request.headers.get(caller.PATIENCE))
        prepared = await self._prepare(wanted, outbox, size)
        self._check_queue(prepared, who)
        adapter.wear(prepared.sequences)
        who.mark(prepared.sequences, time.monotonic())
        self.in_flight += 1
        self._of[who.id] += len(prepared.sequences)
        turn = self._turns.join(who.id, who.rank, len(prepared.sequences))
        try:
            for event in prepared.done:
                outbox.sent += 1
                inbox.put(event)
            engine.submit(prepared.sequences)
            usage = Usage(sum(len(prompt) for prompt in prepared.prompts))
            events = Events(inbox, prepared, usage, wanted.common.n)
            first = await self._begun(events, turn, who)
            return await self._answer(request, wanted, prepared, events, first, adapter.name)
        finally:
            self.in_flight -= 1
            self._turns.leave(turn, time.monotonic())
            self._left(who, len(prepared.sequences))
            engine.cancel([sequence for sequence in prepared.sequences if not sequence.ended])

    async def _prepare(self, wanted: ChatRequest | CompletionRequest, outbox: Outbox, size: int) -> Prepared:
        preparer = self._worker.preparer

        def work() -> Prepared:
            if isinstance(wanted, ChatRequest):
                return preparer.chat(wanted, outbox)
            return preparer.completion(wanted, outbox)

        heavy = size > _INLINE or wanted.common.response_format or getattr(wanted, "tools", None)
        if not heavy:
            return work()
        made = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:  # no thread can be stopped, and what it makes is to be freed
            made.add_done_callback(_discard)
            raise

    def _check_queue(self, prepared: Prepared, who: Caller) -> None:
        """Raises `ApiError` 429 where the queue is full, or what one caller may fill of it, or longer than it waits."""
        count, settings = len(prepared.sequences), self._worker.settings
        most = settings.slots + settings.queue
        share = most - settings.queue // 4 if who.id else most
        full = self._of.total() + count > max(most, count) or self._of[who.id] + count > max(share, count)
        late = who.patience is not None and self._turns.wait(who.id, who.rank, time.monotonic()) > who.patience
        if full or late:
            prepared.close()
            raise self._crowded(who)

    def _crowded(self, who: Caller) -> ApiError:
        return _crowded(self._turns.wait(who.id, who.rank, time.monotonic()))

    async def _begun(self, events: Events, turn: Turn, who: Caller) -> Event | None:
        """The first event: it has its slot, or cannot be served. Raises `ApiError` 429 where it waited long enough."""
        try:
            async with asyncio.timeout(who.patience):
                first = await events.next()
        except TimeoutError:
            raise self._crowded(who) from None
        self._turns.begin(turn, time.monotonic())
        return first

    def _left(self, who: Caller, count: int) -> None:
        self._of[who.id] -= count
        if not self._of[who.id]:
            del self._of[who.id]

    async def _answer(
        self,
        request: web.Request,
        wanted: ChatRequest | CompletionRequest,
        prepared: Prepared,
        events: Events,
        event: Event | None,
        name: str,
    ) -> web.StreamResponse:
        """`event`: the first one."""
        common, chat = wanted.common, isinstance(wanted, ChatRequest)
        head = Head(
            id=("chatcmpl-" if chat else "cmpl-") + uuid4().hex,
            created=int(time.time()),
            model=name,
            chat=chat,
            include_usage=common.include_usage,
            token_ids=common.return_token_ids,
            resumed=common.resume is not None,
            prompts=prepared.prompts,
        )
        if common.stream:
            return await self._stream(request, Stream(head, self._worker.model.vocab), events, event)
        whole = Whole(head, self._worker.model.vocab, prepared.choices)
        while event is not None:
            if event.error is not None:
                raise ApiError(*event.error)
            whole.add(event)
            event = await events.next()
        return web.Response(body=whole.body(events.usage), content_type="application/json")

    async def _stream(
        self, request: web.Request, stream: Stream, events: Events, event: Event | None
    ) -> web.StreamResponse:
        if event is not None and event.error is not None:  # nothing was sent yet: an error can still be an error
            raise ApiError(*event.error)
        response = web.StreamResponse(headers=_SSE_HEADERS)
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(request)
        with shortcut(request, events.outbox, stream.piece) as debt:
            while event is not None:
                if event.error is not None:
                    await response.write(stream.error(error_body(*event.error)))
                    response.force_close()
                    return response
                chunks = [] if event.rest else stream.chunks(event)
                for chunk in chunks:
                    await response.write(chunk)
                if chunks or event.rest:
                    debt.wrote(event.rest)
                event = await events.next()
        for chunk in stream.end(events.usage):
            await response.write(chunk)
        await response.write_eof()
        return response

    # Embeddings and tokens

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        body, size, adapter = await self._body(request)
        if adapter.number:
            raise bad("Embeddings are made by the model itself, without an adapter.", "model")
        worker = self._worker
        wanted = parse_embedding(body, worker.model.vocab.size, worker.model.n_embd)
        if size > _INLINE:
            inputs = await asyncio.to_thread(self._embedding_inputs, wanted)
        else:
            inputs = self._embedding_inputs(wanted)
        vectors = await self._embed(inputs, caller.read(None, request.headers.get(caller.PATIENCE)).patience)
        data = await _written(vectors, wanted)
        tokens = sum(len(tokens) for tokens in inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": worker.settings.name, "usage": usage})

    def _embedding_inputs(self, wanted: EmbeddingRequest) -> list[list[int]]:
        vocab, limit = self._worker.model.vocab, self._worker.embedder.n_ctx
        inputs = [vocab.tokenize(one, True) if isinstance(one, str) else one for one in wanted.inputs]
        for tokens in inputs:
            if not tokens:
                raise bad("An input is empty.", "input")
            if len(tokens) > limit:
                raise too_long(len(tokens), limit, "input")
        return inputs

    async def _embed(self, inputs: list[list[int]], patience: float | None) -> list[Floats]:
        """Raises `ApiError` 429 where they would begin, or have not begun, after `patience` seconds."""
        engine, backlog, embedder = self._engine, self._backlog, self._worker.embedder
        if engine is None:
            raise ApiError(503, "The engine is not running.")
        if patience is not None and backlog.wait() > patience:
            raise _crowded(backlog.wait())
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Floats] | str] = loop.create_future()

        def settle(result: list[Floats] | str) -> None:
            if not answer.done():
                answer.set_result(result)

        job = EmbedJob(inputs, lambda result: _quietly(loop, settle, result))
        tokens, since = sum(map(len, inputs)), time.monotonic()
        self.in_flight += 1
        backlog.join(tokens)
        try:
            embedder.submit(job)
            engine.wake()
            await asyncio.wait({answer}, timeout=patience)
            if not (answer.done() or embedder.begun(job)):
                raise _crowded(backlog.wait())
            result = await answer
        finally:
            self.in_flight -= 1
            job.cancelled = True
            backlog.leave(tokens, since, time.monotonic(), whole=answer.done() and not answer.cancelled())
        if isinstance(result, str):
            raise ApiError(500, result)
        return result

    async def tokenize(self, request: web.Request) -> web.Response:
        body, size, _adapter = await self._body(request)
        if "messages" in body:
            wanted = parse_chat(body, self._worker.model.vocab.size)
            return self._told(await asyncio.to_thread(self._worker.preparer.count, wanted))
        fields = Fields(body)
        text = body.get("prompt", body.get("content"))
        if not isinstance(text, str):
            raise bad("'prompt' must be a string.", "prompt")
        vocab, add = self._worker.model.vocab, fields.flag("add_special_tokens", True)
        tokens = await asyncio.to_thread(vocab.tokenize, text, add) if size > _INLINE else vocab.tokenize(text, add)
        return self._told(tokens)

    def _told(self, tokens: list[int]) -> web.Response:
        return _json({"tokens": tokens, "count": len(tokens), "max_model_len": self._worker.n_ctx})

    async def detokenize(self, request: web.Request) -> web.Response:
        body, _size, _adapter = await self._body(request)
        vocab = self._worker.model.vocab
        text = vocab.detokenize(check_ids(body.get("tokens"), "tokens", vocab.size))
        return _json({"prompt": text, "content": text})


def _discard(made: asyncio.Future[Prepared]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()


async def _written(vectors: list[Floats], wanted: EmbeddingRequest) -> list[msgspec.Raw]:
    """The vectors as JSON, each by itself: a call that writes them all would keep the engine waiting for its lock."""

    def work() -> list[msgspec.Raw]:
        return [_entry(i, vector, wanted) for i, vector in enumerate(vectors)]

    return await asyncio.to_thread(work) if sum(map(len, vectors)) > _NUMBERS else work()


def _entry(index: int, vector: Floats, wanted: EmbeddingRequest) -> msgspec.Raw:
    unit = normalise(vector, wanted.dimensions)
    value = base64.b64encode(unit.tobytes()).decode() if wanted.base64 else unit.tolist()
    return msgspec.Raw(msgspec.json.encode({"object": "embedding", "index": index, "embedding": value}))


def _crowded(wait: float) -> ApiError:
    """The 429 where one would have to wait for so many seconds."""
    return ApiError(429, "Too many answers are waiting for this model.", code="queue_full", retry_after=again(wait))


def _quietly(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], value: object) -> None:
    """Call on the loop from the engine thread; a loop that has closed meanwhile has nobody left to tell."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, value)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as OpenAI's JSON."""
    try:
        return await handler(request)
    except ApiError as error:
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
        return web.Response(body=error.body(), status=error.status, content_type="application/json", headers=headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        message = {404: "There is no such path.", 405: "This path does not take that method."}.get(error.status)
        body = error_body(error.status, message or error.reason or "The request was refused.")
        return web.Response(body=body, status=error.status, content_type="application/json")
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("a request failed")
        return web.Response(
            body=error_body(500, "The worker failed on this request."), status=500, content_type="application/json"
        )
