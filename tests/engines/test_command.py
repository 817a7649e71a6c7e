from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lumen.config.schema import Model
from lumen.core.errors import ConfigError
from lumen.engines.base import Launch, ModelFiles, Place
from lumen.engines.command import ENGINE

FILES = ModelFiles("m", Path("/models/my model.gguf"))


def launch(model: Model | None = None, **options: Any) -> Launch:
    model = model or Model(source="x", engine="command", options=options)
    return ENGINE.launch(FILES, model, Place(Path("/run/r.sock"), 4321, gpus=(2,)))


def test_placeholders_are_filled_and_no_shell_is_asked() -> None:
    made = launch(command="llama-server -m {model} --alias {name} --host {host} --port {port} ';' '$(id)'")
    assert made.argv == (
        *("llama-server", "-m", "/models/my model.gguf", "--alias", "m", "--host", "127.0.0.1", "--port", "4321"),
        *(";", "$(id)"),
    )
    assert (made.socket, made.base_url, made.phases, made.fixed_port) == (None, "http://127.0.0.1:4321", False, None)
    assert made.env == {"CUDA_VISIBLE_DEVICES": "2"}


def test_json_on_the_line_needs_no_escapes() -> None:
    line = """serve {model} --uds {socket} --speculative-config '{"method": "ngram", "n": {"k": 4}}'"""
    made = launch(command=line)
    assert made.argv[-1] == '{"method": "ngram", "n": {"k": 4}}'
    assert (made.socket, made.base_url) == (Path("/run/r.sock"), "http://localhost")


def test_a_value_with_braces_is_not_filled_again() -> None:
    files = ModelFiles("{port}", Path("/m"))
    model = Model(source="x", options={"command": "s {name} {port}"})
    assert ENGINE.launch(files, model, Place(Path("/s"), 1)).argv == ("s", "{port}", "1")


def test_a_server_with_a_port_of_its_own() -> None:
    made = launch(command="serve {model}", port=8080, health="/health", env={"A": 1}, grace=5)
    assert (made.base_url, made.fixed_port, made.health, made.grace) == ("http://127.0.0.1:8080", 8080, "/health", 5)
    assert made.env["A"] == "1" and made.at_once is None
    model = Model(source="x", engine="command", slots=4, options={"command": "serve {port} -np {slots}"})
    assert launch(model).at_once == 4
    assert launch(command="serve --port {port}", port=8080).argv[-1] == "8080"


def test_the_probe_is_a_one_token_answer_under_the_served_name() -> None:
    model = Model(source="x", options={"command": "x", "served_name": "theirs"})
    path, body = ENGINE.probe(FILES, model)
    assert (path, body["model"], body["max_tokens"]) == ("/v1/chat/completions", "theirs", 1)
    path, body = ENGINE.probe(FILES, Model(source="x", embedding=True))
    assert (path, body["model"]) == ("/v1/embeddings", "m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the option 'command'"),
        ({"command": "  "}, "needs the option 'command'"),
        ({"command": "serve {model}"}, "where the server listens"),
        ({"command": "serve {port} {socket}"}, "where the server listens"),
        ({"command": "serve {socket}", "port": 80}, "where the server listens"),
        ({"command": "serve {port} {modle}"}, "no placeholder {modle}; did you mean 'model'"),
        ({"command": "serve {port} {context}"}, "uses {context}, but the model does not set it"),
        ({"command": "serve '{port}"}, "not a command line"),
        ({"command": "serve {port}", "port": 70000}, "at most 65535"),
        ({"command": "serve {port}", "health": "health"}, "must be a path"),
        ({"comand": "serve {port}"}, "did you mean 'command'"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        launch(**options)


def test_replicas_cannot_share_a_port() -> None:
    with pytest.raises(ConfigError, match="cannot share one 'port'"):
        launch(Model(source="x", replicas=2, options={"command": "s", "port": 80}))
