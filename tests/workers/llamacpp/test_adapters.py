"""LoRA adapters by name: each answer is its own adapter's, whoever else is answered beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.shapes import Shape, write, write_adapter
from tests.workers.llamacpp.client import NAME, ROOT, TINY, Worker, together

PLAIN, NOTHING, ONE, TWO = NAME, f"{NAME}:nothing", f"{NAME}:one", f"{NAME}:two"
PROMPTS = ["What is Lumen?", "Count to ten: one, two,", "Green bottles hang on the wall. " * 6]
LANES, SHARED = ("--ctx", "512"), ("--ctx", "512", "--kv", "1536")


def adapter(folder: Path, name: str, **more: Any) -> list[str]:
    path = folder / f"{name}.gguf"
    write_adapter(path, TINY, **more)
    return ["--adapter", f"{name}={path}"]


@pytest.fixture(scope="module", params=[LANES, SHARED], ids=["lanes", "shared"])
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("adapters")
    flags = [*adapter(folder, "nothing", spread=0.0), *adapter(folder, "one", seed=1), *adapter(folder, "two", seed=2)]
    with Worker(*request.param, "--slots", "6", *flags) as running:
        yield running


def ask(worker: Worker, model: str, prompt: str, **more: Any) -> list[int]:
    """The tokens of a greedy answer."""
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 24, "ignore_eos": True, **more}
    answer = worker.request("POST", "/v1/completions", {"return_token_ids": True, **body})
    assert answer.body["model"] == model
    ids: list[int] = answer.choice["token_ids"]
    return ids


def test_an_adapter_changes_answers_and_one_of_zeros_does_not(worker: Worker) -> None:
    for prompt in PROMPTS:
        plain, nothing, one, two = (ask(worker, name, prompt) for name in (PLAIN, NOTHING, ONE, TWO))
        assert plain == nothing
        assert plain not in (one, two)
        assert one != two


@pytest.mark.parametrize("exact", [False, True])
def test_answers_of_several_adapters_at_once_are_those_that_each_gives_alone(worker: Worker, exact: bool) -> None:
    asked = [(name, prompt) for prompt in PROMPTS for name in (PLAIN, ONE, TWO)]
    more: dict[str, Any] = {"resume_exact": True} if exact else {"cache_prompt": False}
    alone = [ask(worker, name, prompt, **more) for name, prompt in asked]
    assert (
        together(*[lambda name=name, prompt=prompt: ask(worker, name, prompt, **more) for name, prompt in asked])
        == alone
    )


def test_prefixes_are_each_adapters_own(worker: Worker) -> None:
    prompt = "Nobody has begun a prompt like this one before, of that we may be sure. " * 4

    def cached(model: str) -> int:
        answer = worker.request("POST", "/v1/completions", {"model": model, "prompt": prompt, "max_tokens": 1})
        return int(answer.body["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert [cached(name) for name in (ONE, TWO, PLAIN)] == [0, 0, 0]
    assert all(cached(name) > 16 for name in (ONE, TWO, PLAIN))


def test_an_adapter_is_worn_again_after_sleep(worker: Worker) -> None:
    before = ask(worker, ONE, PROMPTS[0])
    assert worker.request("POST", "/sleep").status == 200
    assert worker.request("POST", "/wake").status == 200
    assert ask(worker, ONE, PROMPTS[0], cache_prompt=False) == before


def test_streams_chats_and_lists_carry_the_name(worker: Worker) -> None:
    assert [model["id"] for model in worker.get("/v1/models")["data"]] == [PLAIN, NOTHING, ONE, TWO]
    assert worker.get("/props")["names"] == [PLAIN, NOTHING, ONE, TWO]
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    assert {event["model"] for event in worker.stream("/v1/chat/completions", **{**body, "model": ONE})} == {ONE}


def test_what_is_not_there_is_told(worker: Worker) -> None:
    answer = worker.request("POST", "/v1/completions", {"model": f"{NAME}:three", "prompt": "x", "max_tokens": 1})
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert "no such adapter" in answer.error["message"] and ONE in answer.error["message"]
    answer = worker.request("POST", "/v1/embeddings", {"model": ONE, "input": "x"})
    assert answer.status == 400 and "adapter" in answer.error["message"]


def refused(*flags: str) -> str:
    command = [sys.executable, "-m", "lumen.workers.llamacpp", "--model", str(TINY), "--name", NAME, "--port", "0"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=100, cwd=ROOT, check=False)
    assert done.returncode in (2, 4), done
    return done.stderr


def test_an_adapter_that_does_not_fit_is_refused_by_name_and_file(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write(other, Shape("llama", 2, 64, 2, 1, 32, 128, 2048, context=512))
    path = tmp_path / "bad.gguf"
    write_adapter(path, other)
    told = refused("--adapter", f"sql={path}")
    assert f"the adapter 'sql' does not fit this model: {path}: " in told
    assert "shape" in told or "dim" in told
    path.write_bytes(b"no adapter at all")
    assert "the adapter 'sql' does not fit this model" in refused("--adapter", f"sql={path}")
    assert "the adapter 'sql' cannot be read" in refused("--adapter", f"sql={tmp_path / 'absent.gguf'}")
    assert "twice" in refused("--adapter", f"a={path}", "--adapter", f"a={path}")
    assert "is not NAME=GGUF" in refused("--adapter", "nonsense")
