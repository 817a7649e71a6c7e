"""Models with sliding windows: what is reused, branched from or moved must be all that attention looks back at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.shapes import F16, Shape, write
from tests.workers.llamacpp.client import Worker, together

WINDOW = 64
LANES, SHARED = ("--ctx", "512"), ("--ctx", "512", "--kv", "1024")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("windows") / "model.gguf"
    write(path, Shape("gemma3", 6, 128, 4, 2, 32, 256, 2048, window=WINDOW, context=1024, spread=0.2, kind=F16))
    return path


@pytest.fixture(scope="module", params=[LANES, SHARED], ids=["lanes", "shared"])
def worker(request: pytest.FixtureRequest, model: Path) -> Iterator[Worker]:
    with Worker(*request.param, "--slots", "4", model=model) as running:
        yield running


def ids(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(300, 2000), k=count)


def ask(worker: Worker, prompt: list[int], *, reuse: bool) -> tuple[list[float], int]:
    """Log-probabilities of the first tokens, and how much of the prompt was there already."""
    asked: dict[str, Any] = {"max_tokens": 4, "logprobs": 5, "temperature": 0, "cache_prompt": reuse}
    answer = worker.complete(prompt, **asked)
    likely = answer.choice["logprobs"]["top_logprobs"]
    return sorted(likely[0].values()), answer.body["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_far_tokens_matter_as_the_windows_let_them(worker: Worker) -> None:
    prompt = ids(1, 300)
    whole, _ = ask(worker, prompt, reuse=False)
    for back in (20, 280):  # one within all windows, one that only the layer without a window sees
        other, _ = ask(worker, [*prompt[:-back], 299, *prompt[1 - back :]], reuse=False)
        assert max(abs(a - b) for a, b in zip(whole, other, strict=True)) > 0.1


@pytest.mark.parametrize("kept", [300, 299, 280, 150, 40])
def test_what_is_reused_is_what_would_be_computed(worker: Worker, kept: int) -> None:
    first = ids(2, 300)
    ask(worker, first, reuse=True)
    prompt = first[:kept] + ids(kept, 60)
    reused, cached = ask(worker, prompt, reuse=True)
    fresh, none = ask(worker, prompt, reuse=False)
    assert reused == pytest.approx(fresh, abs=0.01)
    assert not none and (cached >= 300 if kept == 300 else cached <= kept)


def test_beside_others_as_alone(worker: Worker) -> None:
    prompts = [ids(seed, 120 + 60 * seed) for seed in range(6)]
    alone = [ask(worker, prompt, reuse=False)[0] for prompt in prompts]
    for _ in range(12):  # answers find remains of each other in lanes and on the shelf, and use up cells
        beside = together(*[lambda prompt=prompt: ask(worker, prompt, reuse=True)[0] for prompt in prompts])
        for one, other in zip(alone, beside, strict=True):
            # Sums in another order differ by 0.003; a window that lacks tokens by ten times that.
            assert other == pytest.approx(one, abs=0.01)
