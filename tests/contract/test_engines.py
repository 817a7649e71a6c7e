"""What every engine must keep, tested for each file found in lumen/engines: a new one is tested on arrival."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.engines.base import Engine, Launch, ModelFiles, Place
from lumen.engines.registry import engine, names
from lumen.hardware.machine import GIB, Hardware
from lumen.providers.base import Capabilities, module

# Where an engine cannot do without an option, its smallest usable set.
LEAST_OPTIONS: dict[str, dict[str, Any]] = {"command": {"command": "serve {model} --port {port}"}}
# Engines that take a folder in Hugging Face's format rather than a file.
FOLDERS = {"vllm"}
MACHINE = Hardware("linux", "x86_64", "a CPU", 4, 8, 16 * GIB, 8 * GIB)


@pytest.fixture(params=names())
def found(request: pytest.FixtureRequest) -> Engine:
    return engine(request.param)


def model_for(found: Engine, **rest: Any) -> Model:
    return Model(source="x", engine=found.name, options=LEAST_OPTIONS.get(found.name, {}), **rest)


def files_for(found: Engine, root: Path, name: str = "org/name") -> ModelFiles:
    return ModelFiles(name, root / ("folder" if found.name in FOLDERS else "model.gguf"))


def launched(found: Engine, root: Path, **rest: Any) -> Launch:
    place = Place(socket=root / "run" / "r.sock", port=4321, parent_pid=os.getpid())
    return found.launch(files_for(found, root), model_for(found, **rest), place)


def test_it_is_named_like_its_file(found: Engine) -> None:
    assert found.name in names()
    assert engine(found.name) is found


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("it must not act")


def calls_of(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, are called: what it costs, however fast the machine is."""
    count = 0

    def seen(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_asking_what_is_missing_is_cheap_and_heavy_modules_stay_out(
    found: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = found.missing()
    assert said is None or (said and "\n" not in said)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    assert calls_of(found.missing) < 2000
    code = (
        "import sys; from lumen.engines.registry import engine; engine(sys.argv[1]).missing()\n"
        "heavy = {'llama_cpp', 'torch', 'vllm', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    monkeypatch.undo()
    subprocess.run([sys.executable, "-c", code, found.name], check=True, timeout=100)


def test_launch_is_pure(found: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in (
        (builtins, "open"), (os, "open"), (os, "mkdir"), (subprocess, "Popen"), (socket, "socket"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, forbidden)
    before = dict(os.environ)
    first = launched(found, tmp_path)
    assert launched(found, tmp_path) == first
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before


def test_the_process_to_start_is_well_formed(found: Engine, tmp_path: Path) -> None:
    launch = launched(found, tmp_path)
    assert launch.argv and all(isinstance(word, str) and "\0" not in word for word in launch.argv)
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in launch.env.items())
    assert not any(name.startswith("LUMEN_") for name in launch.env)
    assert 0 <= launch.grace <= 3600
    assert launch.health is None or launch.health.startswith("/")
    assert any(str(files_for(found, tmp_path).path) in word for word in launch.argv)


def test_it_listens_where_only_this_machine_reaches_it(found: Engine, tmp_path: Path) -> None:
    launch = launched(found, tmp_path)
    if launch.socket is not None:
        assert launch.socket == tmp_path / "run" / "r.sock"
        assert any(str(launch.socket) in word for word in launch.argv)
    else:
        assert launch.base_url == f"http://127.0.0.1:{launch.fixed_port or 4321}"
    assert not launch.base_url.endswith("/")


def test_two_replicas_do_not_meet(found: Engine, tmp_path: Path) -> None:
    files, model = files_for(found, tmp_path), model_for(found)
    one, other = (found.launch(files, model, Place(tmp_path / f"{n}.sock", 5000 + n)) for n in range(2))
    assert (one.socket, one.base_url) != (other.socket, other.base_url)


@pytest.mark.parametrize("embedding", [False, True])
def test_the_probe_is_a_small_inference(found: Engine, tmp_path: Path, embedding: bool) -> None:
    model = model_for(found, embedding=embedding)
    path, body = found.probe(ModelFiles("org/name", tmp_path / "m"), model)
    assert json.loads(json.dumps(dict(body))) == dict(body)
    assert body["model"]
    if embedding:
        assert path == "/v1/embeddings" and body["input"]
    else:
        assert path in ("/v1/completions", "/v1/chat/completions")
        assert body["max_tokens"] == 1 and not body.get("stream")
        assert body.get("prompt") or body.get("messages")


def test_an_unknown_option_is_refused_with_its_name(found: Engine, tmp_path: Path) -> None:
    model = model_for(found)
    model = replace(model, options={**model.options, "no_such_option": 1})
    with pytest.raises(ConfigError, match="no_such_option"):
        found.launch(files_for(found, tmp_path), model, Place(tmp_path / "s", 1))


def test_settling_keeps_what_the_user_said_and_can_be_launched(found: Engine, tmp_path: Path) -> None:
    files = files_for(found, tmp_path)
    model = model_for(found, context=1024, slots=2)
    settled = found.settle(files, model, MACHINE)
    assert (settled.source, settled.context, settled.slots) == (model.source, 1024, 2)
    assert all(settled.options[name] == value for name, value in model.options.items())
    assert found.settle(files, settled, MACHINE) == settled
    assert found.launch(files, settled, Place(tmp_path / "s", 1)).argv


def test_what_it_can_do_is_said_in_the_terms_of_a_dialect_that_exists(found: Engine) -> None:
    model = model_for(found, context=1024)
    told = {name: value for name, value in asdict(found.abilities(model)).items() if value is not None}
    can = replace(Capabilities(local=True), **told)
    assert module(found.dialect(model)).make(can)


def test_a_sleeper_says_how_it_is_woken(found: Engine, tmp_path: Path) -> None:
    launch = launched(found, tmp_path)
    if launch.sleeping is not None:
        calls = (launch.sleeping.sleep, launch.sleeping.wake, launch.sleeping.asleep)
        assert all(call.path.startswith("/") and call.method in ("GET", "POST") for call in calls)


def test_its_log_is_read_without_a_fault_whatever_stands_in_it(found: Engine, tmp_path: Path) -> None:
    launch = launched(found, tmp_path)
    for line in ("", "\0" * 100, "x" * 10_000, "Error: \x1b[31m", "MemoryError", "100%" * 1000):
        if launch.said is not None:
            launch.said(line)
        if launch.remedy is not None:
            said = launch.remedy([line] * 1000, model_for(found, context=4096))
            assert said is None or (len(said.why) < 1000 and "\n" not in said.why)
