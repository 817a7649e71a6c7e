"""A request as the scorer sees it."""

from __future__ import annotations

from msgspec import Struct

# What of a request is read at all: the first and the last characters of its text say what it is about.
HEAD, TAIL = 6144, 2048
ASIDE = 1024


class Ask(Struct, frozen=True, gc=False):
    """One request, before any target is asked.

    `text`: what the user asks now (the last user turn). `system`: the system prompt. `context`: the turns before,
    oldest first. `turns`: user turns, this one included. `tools`: functions offered. `images`: pictures and files in
    the request. `structured`: the answer must be JSON. `limit`: the most tokens the client takes, 0 where it names
    none. `tags`: what the operator knows about the request, such as an application's name; each is a feature of its
    own.
    """

    text: str
    system: str = ""
    context: str = ""
    turns: int = 1
    tools: int = 0
    images: int = 0
    structured: bool = False
    limit: int = 0
    tags: tuple[str, ...] = ()

    def shown(self) -> str:
        """The part of the text that is read: all of it up to 8,192 characters, else its beginning and its end."""
        if len(self.text) <= HEAD + TAIL:
            return self.text
        return self.text[:HEAD] + self.text[-TAIL:]
