"""A request as policies and rules see it; every part is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from lumen.core.meter import estimate_input
from lumen.routing.auto.ask import ASIDE, HEAD, TAIL, Ask
from lumen.routing.plan.once import once
from lumen.wire.call import Call
from lumen.wire.prompt import parts
from lumen.wire.requests import (
    AudioPart,
    ChatRequest,
    CompletionRequest,
    FilePart,
    ImagePart,
    Plain,
    TextFormat,
)

TAGS_HEADER = "x-lumen-tags"
_MOST_TAGS = 32
_SYSTEM, _USER = ("system", "developer"), ("user", "prompt")


class _Said(NamedTuple):
    """`system`: the system prompt. `first`, `text`: the first and the last user turn. `turns`: user turns, at least 1.
    `last`: the place of the last one among all messages."""

    system: str
    first: str
    text: str
    turns: int
    last: int


class Facts:
    """One request. `size`: bytes of its body. `key`: its key's name, empty without one.

    `headers`: the client's, looked up by lower-case names. Tags come from the request's `metadata` and from the header
    `x-lumen-tags: app=batch, team=blue`; what the header says counts more.
    """

    def __init__(self, call: Call, size: int, key: str, headers: Mapping[str, str]) -> None:
        self.call = call
        self.size = size
        self.key = key
        self.headers = headers
        request = call.request
        self.chat: ChatRequest | None = request if isinstance(request, ChatRequest) else None

    def read(self, field: str) -> Any:
        """A field of `lumen.core.expression`, or the tags or headers."""
        return _READ[field](self)

    @property
    def tools(self) -> int:
        """Functions offered."""
        return len(self.chat.tools or ()) if self.chat is not None else 0

    @property
    def structured(self) -> bool:
        """Whether the answer must be JSON."""
        wanted = self.chat.response_format if self.chat is not None else None
        return wanted is not None and not isinstance(wanted, TextFormat)

    @property
    def images(self) -> int:
        """Pictures, files and audio in the request."""
        return len(self._attached)

    @once
    def tokens(self) -> int:
        """Input tokens, estimated; pictures count as a thousand each."""
        return estimate_input(max(self.size - sum(self._attached), 0)) + 1000 * self.images

    @once
    def limit(self) -> int:
        """The most tokens of an answer that the client takes; 0 where it names none."""
        request = self.call.request
        if isinstance(request, Plain):
            return 0
        most = request.max_completion_tokens if isinstance(request, ChatRequest) else None
        return most or request.max_tokens or 0

    @once
    def tags(self) -> dict[str, str]:
        """What is known of the request beside its words."""
        given = dict(self.chat.metadata or ()) if self.chat is not None else {}
        return given | self.marks

    @property
    def marks(self) -> dict[str, str]:
        """The tags of the header alone."""
        found: dict[str, str] = {}
        given = self.headers.get(TAGS_HEADER)
        for item in given.split(",")[:_MOST_TAGS] if given else ():
            name, equals, value = item.partition("=")
            if equals:
                found[name.strip()] = value.strip()
        return found

    @property
    def turns(self) -> int:
        """User turns, this one included."""
        return self._said.turns

    @property
    def text(self) -> str:
        """What the user asks now: the last user turn."""
        return self._said.text

    @property
    def system(self) -> str:
        """The system prompt."""
        return self._said.system

    @once
    def conversation(self) -> bytes:
        """The same for all requests of one conversation: a hash of the key, the system prompt, the first user turn."""
        digest = blake2b(digest_size=16)
        for part in (self.key, self._said.system, self._said.first):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.digest()

    @property
    def thread(self) -> int:
        """As `conversation`, for what is remembered no longer than this process lives."""
        said = self._said
        return hash((self.key, said.system, said.first))

    @once
    def ask(self) -> Ask:
        """The request as the scorer sees it. Of the tags it takes the header's: metadata may be new each time."""
        said, marks = self._said, self.marks
        return Ask(
            text=said.text,
            system=said.system,
            context=self._context() if said.last else "",
            turns=said.turns,
            tools=self.tools,
            images=self.images,
            structured=self.structured,
            limit=self.limit,
            tags=tuple(f"{name}={value}" for name, value in sorted(marks.items())) if marks else (),
        )

    def _context(self) -> str:
        """The turns before the last user turn, oldest first, as much of their end as is read."""
        before = [text for role, text in self._texts[: self._said.last] if role not in _SYSTEM]
        kept: list[str] = []
        size = 0
        for text in reversed(before):
            kept.append(text)
            size += len(text)
            if size > HEAD + TAIL + ASIDE:
                break
        return "\n".join(reversed(kept))

    @once
    def _texts(self) -> list[tuple[str, str]]:
        return list(parts(self.call.request))

    @once
    def _said(self) -> _Said:
        system: list[str] = []
        text, first, turns, last = "", "", 0, 0
        for place, (role, said) in enumerate(self._texts):
            if role in _USER:
                text, first, turns, last = said, first if turns else said, turns + 1, place
            elif role in _SYSTEM:
                system.append(said)
        return _Said("\n".join(system), first, text, max(turns, 1), last)

    @once
    def _attached(self) -> list[int]:
        """Bytes of each picture, file and sound in the request."""
        found: list[int] = []
        for message in self.chat.messages if self.chat is not None else ():
            for part in message.content if isinstance(message.content, list) else ():
                if isinstance(part, ImagePart):
                    found.append(len(part.image_url.url))
                elif isinstance(part, FilePart):
                    found.append(len(part.file.file_data or ""))
                elif isinstance(part, AudioPart):
                    found.append(len(part.input_audio.data))
        return found


def asks_text(call: Call) -> bool:
    """Whether the request is one that a scorer knows: a chat or a completion."""
    return isinstance(call.request, ChatRequest | CompletionRequest)


_READ: Mapping[str, Any] = {
    "text": lambda facts: facts.text,
    "system": lambda facts: facts.system,
    "turns": lambda facts: facts.turns,
    "characters": lambda facts: len(facts.text),
    "tokens": lambda facts: facts.tokens,
    "tools": lambda facts: facts.tools,
    "images": lambda facts: facts.images,
    "json": lambda facts: facts.structured,
    "stream": lambda facts: facts.call.stream,
    "limit": lambda facts: facts.limit,
    "key": lambda facts: facts.key or None,
    "operation": lambda facts: facts.call.operation.value,
    "tags": lambda facts: facts.tags,
    "headers": lambda facts: facts.headers,
}
