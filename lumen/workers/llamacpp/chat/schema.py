"""JSON schemas of requests -> GBNF, bounded so that no schema a client sends can stall or kill the engine."""

from __future__ import annotations

from typing import Any

from lumen.workers.llamacpp.chat.families.base import Tools
from lumen.workers.llamacpp.chat.gbnf import Grammar


class BadSchema(ValueError):
    """A schema that cannot be compiled. `param` names the request field, `message` says what is wrong."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param
        self.message = message


def response_grammar(response_format: dict[str, Any] | None) -> Grammar | None:
    """Grammar of `response_format`: None for "text" or none. Raises BadSchema."""
    raise NotImplementedError


def check_tools(tools: Tools) -> None:
    """Raises BadSchema("tools[i].function.parameters", …) for the first tool whose parameters do not compile."""
    raise NotImplementedError
