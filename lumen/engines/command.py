"""Any OpenAI-compatible server by its command line: `llama-server`, SGLang, TGI, MLX.

    engine: command
    options:
      command: llama-server -m {model} --alias {name} --host {host} --port {port}
      health: /health

Placeholders are replaced after the line is split into words, so a path with blanks stays one word, and
nothing of it reaches a shell. A server that takes no port on its command line names it by `port: 8080`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lumen.config.schema import Abilities, Model
from lumen.core.errors import ConfigError
from lumen.engines._options import Option, check_options, nearest
from lumen.engines.base import Launch, ModelFiles, Place

if TYPE_CHECKING:
    from lumen.hardware.machine import Hardware

_HOST = "127.0.0.1"
_OPTIONS: Mapping[str, Option] = {
    "command": Option(str),
    "health": Option(str),
    "served_name": Option(str),
    "port": Option(int, least=1, most=65535),
    "env": Option(dict),
    "grace": Option(float, least=0, most=3600),
    "dialect": Option(str, choices=("openai", "vllm")),
    "prefill": Option(str, choices=("none", "prefix", "continue", "native")),
}
# Only a bare word in braces is a placeholder: JSON on a command line needs no doubled braces.
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Command:
    """Text goes in and out; what the server can do beyond that is not assumed, but for what the options say."""

    name = "command"

    def missing(self) -> str | None:
        # Which program it takes is known only by the model; its absence shows when it is started.
        return None

    def dialect(self, model: Model) -> str:
        return str(model.options.get("dialect", "openai"))

    def abilities(self, model: Model) -> Abilities:
        ids = self.dialect(model) == "vllm" and model.context is not None
        return Abilities(token_ids=ids, sampler_state=False, prefill=model.options.get("prefill", "none"))

    def settle(self, files: ModelFiles, model: Model, machine: Hardware) -> Model:
        return model

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        options = check_options(self.name, model.options, _OPTIONS)
        if model.adapters:
            raise ConfigError("engine 'command' does not know how its server is given adapters; write it in 'command'")
        line = options.get("command", "")
        used = set(_PLACEHOLDER.findall(line))
        port: int | None = options.get("port")
        _check(options, used)
        if port is not None and model.replicas > 1:
            raise ConfigError("several replicas cannot share one 'port'; use {port} in 'command' instead")
        values = {
            "model": files.path,
            "name": _served(files, options),
            "host": _HOST,
            "port": port or place.port,
            "socket": place.socket,
            "draft": files.draft,
            "context": model.context,
            "slots": model.slots,
            "threads": model.threads or place.threads,
            "gpu_layers": model.gpu_layers,
        }
        on_socket = "socket" in used
        return Launch(
            argv=_words(line, values),
            socket=place.socket if on_socket else None,
            base_url="http://localhost" if on_socket else f"http://{_HOST}:{port or place.port}",
            env=_environment(options, place),
            health=options.get("health"),
            fixed_port=port,
            at_once=model.slots,
            grace=float(options.get("grace", 30.0)),
        )

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        name = _served(files, model.options)
        if model.embedding:
            return "/v1/embeddings", {"model": name, "input": "ready?"}
        messages = [{"role": "user", "content": "ready?"}]
        body = {"model": name, "messages": messages, "max_tokens": 1, "temperature": 0}
        return "/v1/chat/completions", body


def _served(files: ModelFiles, options: Mapping[str, Any]) -> str:
    return str(options.get("served_name") or files.name)


def _check(options: Mapping[str, Any], used: set[str]) -> None:
    if not options.get("command", "").strip():
        raise ConfigError("engine 'command' needs the option 'command': the server's command line")
    if len(used & {"socket", "port"}) + ("port" in options and "port" not in used) != 1:
        raise ConfigError(
            "'command' must say where the server listens: exactly one of {port}, {socket} or the option 'port'"
        )
    if not options.get("health", "/").startswith("/"):
        raise ConfigError("option 'health' of engine 'command' must be a path such as /health")


def _words(line: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            hint = nearest(name, tuple(sorted(values)))
            raise ConfigError(f"'command' has no placeholder {{{name}}}; {hint}")
        if values[name] is None:
            raise ConfigError(f"'command' uses {{{name}}}, but the model does not set it")
        return str(values[name])

    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"option 'command' is not a command line: {error}") from None
    return tuple(_PLACEHOLDER.sub(value, word) for word in words)


def _environment(options: Mapping[str, Any], place: Place) -> dict[str, str]:
    env = {str(name): str(value) for name, value in options.get("env", {}).items()}
    if place.gpus:
        env.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, place.gpus)))
    return env


ENGINE = Command()
