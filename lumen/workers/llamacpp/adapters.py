"""LoRA adapters: small changes to a model's weights, each by its name beside the model's own.

    model            the model as it is
    model:adapter    the same with one adapter

llama.cpp applies adapters to a whole context, so a decode is of one adapter's sequences only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from pathlib import Path

from lumen.workers.llamacpp.errors import ApiError
from lumen.workers.llamacpp.model import LoadError, Model
from lumen.workers.llamacpp.sequence import Sequence
from lumen.workers.llamacpp.snapshots import model_digest


@dataclass(frozen=True, slots=True)
class Adapter:
    """`name`: as requests carry it. `number`: 0 is none. `mark`: of its content; computed prefixes are its own."""

    name: str
    number: int = 0
    mark: str = ""

    def wear(self, sequences: Iterable[Sequence]) -> None:
        """Have `sequences` computed with it."""
        if self.number:
            for sequence in sequences:
                sequence.adapter, sequence.salt = self.number, f"{self.mark}/{sequence.salt}"


class Names:
    """What requests may name: the model, and the model with each of its adapters."""

    def __init__(self, model: str, adapters: Many[Adapter] = ()) -> None:
        self._model = model
        self._known = {model: Adapter(model)}
        for one in adapters:
            name = f"{model}:{one.name}"
            self._known[name] = replace(one, name=name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def find(self, name: object) -> Adapter:
        """None stands for the model itself. Raises `ApiError` 404."""
        found = self._known.get(self._model if name is None else name) if isinstance(name, str | None) else None
        if found is not None:
            return found
        message = "This worker does not serve that model."
        if isinstance(name, str) and name.startswith(f"{self._model}:"):
            there = ", ".join(list(self._known)[1:])
            message = "This model has no such adapter" + (f"; there are {there}." if there else ".")
        raise ApiError(404, message, "model", "model_not_found")


def load(model: Model, adapters: Iterable[tuple[str, Path]]) -> list[Adapter]:
    """Load adapters, each once, whatever contexts will use it. Raises `LoadError`, which names the file."""
    found = []
    for name, path in adapters:
        try:
            digest = model_digest(path)
        except OSError as error:
            raise LoadError(f"the adapter '{name}' cannot be read: {path}: {error.strerror}") from None
        try:
            number = model.adapt(path)
        except LoadError as error:
            raise LoadError(f"the adapter '{name}' does not fit this model: {path}: {error}") from None
        found.append(Adapter(name, number, hashlib.sha256(digest.encode()).hexdigest()[:16]))
    return found
