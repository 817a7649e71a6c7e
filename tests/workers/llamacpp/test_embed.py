"""Embeddings that cannot be made, and what does not suffer from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from lumen.workers.llamacpp import embed
from lumen.workers.llamacpp.context import DecodeFailed, Floats
from lumen.workers.llamacpp.embed import Embedder, EmbedJob
from lumen.workers.llamacpp.metrics import Counters
from lumen.workers.llamacpp.model import LoadError


class Context:
    """Fails as often as it is told. `open`: how many of them there are."""

    failures: ClassVar[list[Exception]] = []  # of decodes
    refused: ClassVar[list[Exception]] = []  # of makings
    open: ClassVar[int] = 0

    def __init__(self, _model: object, _shape: object) -> None:
        if self.refused:
            raise self.refused.pop()
        Context.open += 1

    def clear(self) -> None:
        return

    def close(self) -> None:
        Context.open -= 1

    def decode_all(self, _chunk: object) -> None:
        if self.failures:
            raise self.failures.pop()

    def embeddings(self, count: int) -> Floats:
        return np.ones((count, 2), np.float32)


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Embedder:
    monkeypatch.setattr(embed, "Context", Context)
    monkeypatch.setattr(Context, "open", 0)
    model: Any = SimpleNamespace(arch_meta=lambda _key: None)
    return Embedder(model, "mean", 64, 32, 1, Counters())


def ask(embedder: Embedder) -> list[Any]:
    told: list[Any] = []
    embedder.submit(EmbedJob([[1, 2, 3]], told.append))
    return told


def test_where_there_is_no_memory_whoever_asked_is_told_and_the_engine_goes_on(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "refused", [LoadError("no memory") for _ in range(5)])
    for _ in range(5):
        told = ask(embedder)
        embedder.step()
        assert len(told) == 1 and "LoadError" in told[0] and not embedder.pending
    told = ask(embedder)
    embedder.step()
    assert told[0][0].tolist() == [3.0, 3.0]


def test_a_decode_that_breaks_costs_its_request_and_its_context(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "failures", [DecodeFailed("broken"), DecodeFailed("broken")])
    for _ in range(2):
        told = ask(embedder)
        embedder.step()
        assert "DecodeFailed" in told[0] and Context.open == 0
    told = ask(embedder)
    embedder.step()
    assert told[0][0].tolist() == [3.0, 3.0] and Context.open == 1


def test_where_every_decode_breaks_the_engine_is_given_up(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "failures", [DecodeFailed("broken") for _ in range(3)])
    told = [ask(embedder) for _ in range(3)]
    embedder.step()
    embedder.step()
    with pytest.raises(DecodeFailed):
        embedder.step()
    assert all(len(each) == 1 and isinstance(each[0], str) for each in told)
