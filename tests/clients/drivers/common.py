"""What the drivers in Python share. A driver runs in its client's own environment and imports nothing of Lumen.

It reads one line of JSON, the targets, and answers with a line for each feature and target: whether it works. `stopped`
says that a stream was left, and waits for the word whether it ended behind Lumen too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

QUESTION = "What is the weather in Paris?"
CITY_QUESTION = "Give me a JSON object with city."
ENDLESS = "Count from 1 to 100."
LONG = "word " * 5000
SUNNY = "sunny, 21 degrees"
# One black pixel; what shows itself to have it says so by these words.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
PICTURE = f"data:image/png;base64,{PIXEL}"
LOOK = "Name it:"
SEEN = f"image/png {hashlib.sha256(base64.b64decode(PIXEL)).hexdigest()[:16]}"
BEGUN = "Once upon a time"
DOCUMENTS = ["the sun", "the moon", "the sea"]
# The tool of the question, as chat completions and as the Responses API want it.
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_ABOUT = {"name": "get_weather", "description": "Get the weather of a city.", "parameters": PARAMETERS}
TOOL: Any = {"type": "function", "function": _ABOUT}
FLAT_TOOL: Any = {"type": "function", **_ABOUT, "strict": False}
_E = TypeVar("_E", bound=BaseException)
_WORDS = 300


@dataclass(frozen=True)
class Target:
    """One way to serve a model, by the names of models that behave as the features need it.

    `says`: the text that `model` answers with, where it is known. `limited` is a key and a model that give a 429.
    `broken`: a stream that breaks off for good; `embedder`: what makes vectors; `media`: what moderates, paints, hears
    and speaks, and ranks; `sees`: what tells the picture it was shown; `completer`: what goes on with
    a text. Empty where a target has none.
    """

    name: str
    url: str
    key: str
    model: str
    says: str
    slow: str
    context: str
    limited: tuple[str, str]
    broken: str
    embedder: str
    media: str
    sees: str
    completer: str

    @property
    def root(self) -> str:
        """The address without the version, which some clients add by themselves."""
        return self.url.removesuffix("/v1")

    def said(self, text: str | None) -> None:
        assert text, "the answer is empty"
        assert not self.says or text == self.says, text


Check = Callable[[Target], object]
# What a target must have for a feature to be tried on it.
NEEDS = {
    **{f"{dialect}.broken": "broken" for dialect in ("chat", "responses", "messages")},
    "other.embeddings": "embedder",
    "other.completions": "completer",
    **{f"other.{name}": "media" for name in ("moderations", "images", "transcription", "speech", "rerank")},
    **{f"{dialect}.image": "sees" for dialect in ("chat", "responses", "messages")},
}


def weather(city: str) -> str:
    """What the tool gives; it must be asked about the city of the question."""
    assert city == "Paris", city
    return SUNNY


def raises(error: type[_E], call: Callable[[], object], attempts: int = 1) -> _E:
    """The error that a call raises; of an exhausted rate the first call may not be the one that is refused."""
    for _ in range(attempts):
        try:
            call()
        except error as raised:
            return raised
    raise AssertionError(f"{error.__name__} was not raised")


def stopped(target: Target) -> None:
    """A stream was left: it must have ended everywhere behind Lumen."""
    _tell({"stopped": target.name})
    word = sys.stdin.readline().strip()
    assert word == "ok", word


def run(version: str, checks: dict[str, Check]) -> None:
    """Try every feature on every target; `version` is the client's own word for what it is."""
    os.environ.setdefault("NO_COLOR", "1")
    targets = [Target(**one) for one in json.loads(sys.stdin.readline())]
    _tell({"version": version})
    for target in targets:
        for name, check in checks.items():
            if name not in NEEDS or getattr(target, NEEDS[name]):
                _tell({"feature": name, "target": target.name, "failed": _failure(check, target)})


def _failure(check: Check, target: Target) -> str | None:
    try:
        check(target)
    except Exception as error:  # noqa: BLE001  whatever a client raises is what is to be told
        return f"{type(error).__name__}: {error}"[:_WORDS]
    return None


def _tell(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
