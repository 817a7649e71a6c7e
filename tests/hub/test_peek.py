from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from lumen.config.schema import Hub
from lumen.hub.anatomy import Anatomy
from lumen.hub.errors import BadModelFileError, MissingError, NetworkError
from lumen.hub.estimate_hf import Weights
from lumen.hub.peek import peek
from lumen.hub.reference import HubModel, parse
from tests.hub.conftest import QUICK
from tests.hub.ggufs import LLAMA, gguf
from tests.hub.server import FakeHub

Run = Callable[[Coroutine[Any, Any, Any]], Any]
# A vocabulary that makes the header longer than the first look at it.
LONG = {**LLAMA, "tokenizer.ggml.tokens": (8, [f"token number {number}" for number in range(60_000)])}


def model(rows: int) -> bytes:
    tensors = [("token_embd.weight", (256, rows), 0), ("blk.0.ffn_up.weight", (256, rows), 0)]
    return gguf(LONG, tensors)


def look(files: dict[str, bytes], reference: str, hub: FakeHub | None = None) -> Coroutine[Any, Any, Any]:
    async def found() -> Any:
        served = hub or FakeHub(files)
        async with served.running():
            wanted = parse(reference)
            assert isinstance(wanted, HubModel)
            return await peek(wanted, Hub(endpoint=served.hub), QUICK), served

    return found()


def test_every_quantisation_from_one_header(run: Run) -> None:
    files = {"m-Q4_K_M.gguf": model(1000), "m-Q8_0.gguf": model(6000), "README.md": b"hello"}
    variants, hub = run(look(files, "hf://o/r"))
    assert [(one.quant, one.size) for one in variants] == [("Q4_K_M", len(files["m-Q4_K_M.gguf"])),
                                                            ("Q8_0", len(files["m-Q8_0.gguf"]))]  # fmt: skip
    small, large = (one.body for one in variants)
    assert isinstance(small, Anatomy) and isinstance(large, Anatomy)
    assert (small.facts.layers, small.facts.vocabulary) == (2, 60_000)
    assert (small.weights, large.weights) == (2 * 256 * 4 * 1000, 2 * 256 * 4 * 6000)
    assert large.layer_bytes == (256 * 4 * 6000, 0)
    # Only the smaller file was looked at, and no more of it than its beginning.
    assert not any("Q8_0" in path for _, path, _ in hub.seen)
    assert max(stop for _, stop in hub.ranges) <= 4 << 20


def test_one_quantisation_that_was_asked_for(run: Run) -> None:
    files = {"m-Q4_K_M.gguf": model(1000), "m-Q8_0.gguf": model(6000)}
    variants, _ = run(look(files, "hf://o/r:Q8_0"))
    assert [one.quant for one in variants] == ["Q8_0"]
    with pytest.raises(MissingError, match="has no Q2_K"):
        run(look(files, "hf://o/r:Q2_K"))


def test_a_split_model(run: Run) -> None:
    files = {f"m-Q4_0-0000{part}-of-00002.gguf": model(1000) for part in (1, 2)}
    ((variant,), _) = run(look(files, "hf://o/r"))
    assert variant.size == sum(map(len, files.values()))
    assert isinstance(variant.body, Anatomy) and len(variant.body.layer_bytes) == 2


def test_a_folder_of_safetensors(run: Run) -> None:
    config = {"num_hidden_layers": 3, "text_config": {"hidden_size": 64}}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": bytes(5000), "tokenizer.json": b"{}"}
    ((variant,), _) = run(look(files, "hf://o/r"))
    assert variant.body == Weights({**config, "hidden_size": 64}, 5000)
    with pytest.raises(BadModelFileError, match=r"config\.json"):
        run(look({**files, "config.json": b"[1"}, "hf://o/r"))


def test_a_file_that_is_no_model(run: Run) -> None:
    with pytest.raises(BadModelFileError, match="not a GGUF"):
        run(look({"m-Q4_0.gguf": b"x" * 3_000_000}, "hf://o/r"))


def test_a_server_without_ranges_is_not_read_to_the_end(run: Run) -> None:
    hub = FakeHub({"m-Q4_0.gguf": model(30_000)})
    hub.faults = replace(hub.faults, ranges=False)
    ((variant,), _) = run(look({}, "hf://o/r", hub))
    assert variant.body.facts.layers == 2


def test_a_hub_that_refuses(run: Run) -> None:
    hub = FakeHub({"m-Q4_0.gguf": model(10)})
    hub.faults = replace(hub.faults, refuse=1)
    with pytest.raises(NetworkError, match="status 503"):
        run(look({}, "hf://o/r", hub))
