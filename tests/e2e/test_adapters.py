"""A model's LoRA adapters as models of their own, through the whole of Lumen."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from bench.shapes import write_adapter
from lumen import tiny
from tests.e2e.conftest import Box, until

CONFIG = """
models:
  base:
    source: builtin:tiny
    adapters: {one: one.gguf, two: ./two.gguf}
routes:
  taught: {targets: ["base:two"]}
"""


def test_adapters_are_models_by_their_names(fresh: Box) -> None:
    folder = fresh.home / "config"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("one", "two")):
        write_adapter(folder / f"{name}.gguf", tiny.MODEL, seed=seed)
    (folder / "config.yaml").write_text(CONFIG)
    fresh.up()
    until(lambda: all(model["ready"] for model in fresh.status()["models"]), "the model")
    client = fresh.client()

    def ask(model: str) -> str:
        more: dict[str, Any] = {"temperature": 0, "max_tokens": 16}
        answer = client.completions.create(model=model, prompt="What is Lumen?", **more)
        assert answer.model == ("base:two" if model == "taught" else model)
        return answer.choices[0].text

    texts = {name: ask(name) for name in ("base", "base:one", "base:two")}
    assert len(set(texts.values())) == 3
    assert ask("taught") == texts["base:two"]
    assert {"base", "base:one", "base:two", "taught"} <= {model.id for model in client.models.list()}
    streamed = client.completions.create(
        model="base:one", prompt="What is Lumen?", temperature=0, max_tokens=16, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == texts["base:one"]
    with pytest.raises(openai.NotFoundError):
        ask("base:three")
