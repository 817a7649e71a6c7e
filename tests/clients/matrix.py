"""What is tried with which client, and what came of it: the shape of `outcomes.json`. No I/O but that file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUTCOMES = HERE / "outcomes.json"
# How a model is served: by the built-in engine, or by a provider of this dialect.
TARGETS = ("local", "openai", "anthropic", "gemini")
_BOTH = {
    "whole": "a whole answer",
    "stream": "a stream",
    "tools": "tools, with their results",
    "tools_streamed": "the same, streamed",
    "structured": "structured output",
    "errors": "typed errors: 401, 404, 400, 429",
    "broken": "a stream that breaks for good raises",
    "cancel": "closed midway: the target stops, its slot is free",
    "image": "a picture beside the words, which reaches the target",
}
FEATURES = {
    **{f"chat.{name}": label for name, label in _BOTH.items()},
    **{f"responses.{name}": label for name, label in _BOTH.items()},
    "responses.previous": "`previous_response_id`, where answers are kept",
    **{f"messages.{name}": label for name, label in _BOTH.items()},
    "messages.count": "`count_tokens`",
    "other.completions": "`/v1/completions`, whole and streamed",
    "other.embeddings": "`/v1/embeddings`",
    "other.rerank": "`/v1/rerank`",
    "other.moderations": "`/v1/moderations`",
    "other.images": "`/v1/images/generations`",
    "other.transcription": "`/v1/audio/transcriptions`",
    "other.speech": "`/v1/audio/speech`",
    "other.models": "`/v1/models`",
}
PARTS = {
    "chat": "`/v1/chat/completions`",
    "responses": "`/v1/responses`",
    "messages": "`/v1/messages`",
    "other": "others",
}


@dataclass(frozen=True)
class Client:
    """One client.

    `package`: of which the version is told. `locked`: its environment in `locked/`, an npm project where `driver` is
    JavaScript.
    """

    name: str
    title: str
    package: str
    locked: str
    driver: str

    @property
    def javascript(self) -> bool:
        return self.driver.endswith(".mjs")

    def version(self) -> str:
        """As it is locked."""
        if self.javascript:
            found = json.loads((HERE / "locked" / self.locked / "package.json").read_text(encoding="utf-8"))
            return str(found["dependencies"][self.package])
        listed = (HERE / "locked" / f"{self.locked}.txt").read_text(encoding="utf-8")
        pinned = re.search(rf"^{re.escape(self.package)}==(\S+)", listed, re.MULTILINE)
        assert pinned is not None, f"{self.package} is not locked"
        return pinned[1]


CLIENTS = (
    Client("openai-python", "OpenAI, Python", "openai", "openai", "openai_python.py"),
    Client("openai-node", "OpenAI, Node", "openai", "node", "openai_node.mjs"),
    Client("anthropic-python", "Anthropic, Python", "anthropic", "anthropic", "anthropic_python.py"),
    Client("langchain", "LangChain", "langchain", "langchain", "langchain_python.py"),
    Client("pydantic-ai", "Pydantic AI", "pydantic-ai-slim", "pydantic_ai", "pydantic_ai_python.py"),
    Client("ai-sdk", "AI SDK", "ai", "node", "ai_sdk.mjs"),
    Client("litellm", "LiteLLM", "litellm", "litellm", "litellm_python.py"),
)


def outcomes() -> dict[str, Any]:
    """Per client: its `version`, and per feature and target `null` where it works, else why it does not."""
    found: dict[str, Any] = json.loads(OUTCOMES.read_text(encoding="utf-8"))
    return found


def record(client: Client, version: str, results: dict[str, dict[str, str | None]]) -> None:
    """Put the outcomes of one client in the place of its earlier ones."""
    found = outcomes() if OUTCOMES.exists() else {}
    found[client.name] = {"version": version, "results": {name: results[name] for name in FEATURES if name in results}}
    ordered = {one.name: found[one.name] for one in CLIENTS if one.name in found}
    OUTCOMES.write_text(_text(ordered), encoding="utf-8")


def _text(found: dict[str, Any]) -> str:
    """A line for each feature, so that a change can be read."""
    blocks = []
    for name, told in found.items():
        lines = ",\n".join(f"   {json.dumps(feature)}: {json.dumps(on)}" for feature, on in told["results"].items())
        head = f' {json.dumps(name)}: {{\n  "version": {json.dumps(told["version"])},\n  "results": {{\n'
        blocks.append(f"{head}{lines}\n  }}\n }}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"
