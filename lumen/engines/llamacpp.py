"""llama.cpp, by Lumen's own worker program around llama-cpp-python."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lumen
from lumen.config.schema import Abilities, Model
from lumen.config.units import parse_size
from lumen.core.errors import ConfigError
from lumen.engines._options import Option, check_options
from lumen.engines.base import Launch, ModelFiles, Place, Request, Sleeping
from lumen.paths import paths

if TYPE_CHECKING:
    from lumen.hardware.machine import Hardware

_GRACE = 30.0
# Seconds beyond it: the worker writes prefixes for 4 s at most.
_KEEPING = 7.0
_DISK = "256MiB"
_OPTIONS: Mapping[str, Option] = {
    "kv": Option(int, least=256),
    "park": Option(int, least=0),
    "kv_disk": Option(object),  # a size
    "batch": Option(int, least=32),
    "ubatch": Option(int, least=1),
    "flash_attn": Option(str, choices=("auto", "on", "off")),
    "repack": Option(str, choices=("auto", "on", "off")),
    "speculate": Option(str, choices=("auto", "on", "off")),
    "grace": Option(float, least=0, most=3600),
}
_POOLING = ("mean", "cls", "last")
_SLEEPING = Sleeping(Request("POST", "/sleep"), Request("POST", "/wake"), Request("GET", "/is_sleeping"))


class LlamaCpp:
    """GGUF models on CPU or GPU; speaks token ids, so an answer can go on in another replica."""

    name = "llamacpp"

    def missing(self) -> str | None:
        # Found, not imported: the import loads the engine's libraries into the gateway.
        if find_spec("llama_cpp") is None:
            return "llama-cpp-python is not installed; run ./install.sh"
        return None

    def dialect(self, model: Model) -> str:
        return "openai"

    def abilities(self, model: Model) -> Abilities:
        return Abilities(token_ids=True, prefill="continue", tokenize=True)

    def settle(self, files: ModelFiles, model: Model, machine: Hardware) -> Model:
        if files.path.is_dir():
            raise ConfigError("engine 'llamacpp' serves GGUF files, and this is a folder; use `engine: vllm`")
        # The worker reads its model's file itself, and fits what is left open to it.
        return model

    def launch(self, files: ModelFiles, model: Model, place: Place) -> Launch:
        options = check_options(self.name, model.options, _OPTIONS)
        grace = float(options.pop("grace", _GRACE))
        disk = _disk(options.pop("kv_disk", _DISK)) if not model.embedding else 0
        _check(files, model)
        flags: dict[str, Any] = {
            "model": files.path,
            "name": files.name,
            "socket": place.socket,
            "ctx": model.context,
            "slots": model.slots,
            "draft": files.draft,
            "threads": model.threads or place.threads,
            "gpu-layers": model.gpu_layers,
            "kv-type": model.kv_type,
            "pooling": model.pooling,
            "parent-pid": place.parent_pid,
            "kv-dir": paths().prefixes_dir if disk else None,
            "kv-disk-mb": disk or None,
            "grace": f"{grace:g}",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        # -P: nothing lying in the folder where `lumen` was started may shadow a module of the worker.
        argv = [sys.executable, "-P", "-m", "lumen.workers.llamacpp"]
        for flag, value in flags.items():
            if value is not None:
                argv += [f"--{flag}", str(value)]
        if model.embedding:
            argv.append("--embedding")
        for name, path in files.adapters.items():
            argv += ["--adapter", f"{name}={path}"]
        # The worker ends by itself within its grace; the margin lets it write its prefixes and its last words.
        return Launch(
            tuple(argv),
            place.socket,
            env=_environment(place),
            phases=True,
            discreet=True,
            # On a card the weights would stay there; loaded from mapped pages again they are soon back.
            sleeping=None if model.gpu_layers else _SLEEPING,
            grace=grace + (_KEEPING if disk else 2.0),
        )

    def probe(self, files: ModelFiles, model: Model) -> tuple[str, Mapping[str, Any]]:
        if model.embedding:
            return "/v1/embeddings", {"model": files.name, "input": "ready?"}
        # Not chat: a base model without a chat template must come up too.
        body = {"model": files.name, "prompt": "ready?", "max_tokens": 1, "temperature": 0}
        return "/v1/completions", body


def _disk(written: object) -> int:
    """MiB of prefixes that may be kept on the disk."""
    try:
        return parse_size(str(written)) >> 20
    except ValueError as error:
        raise ConfigError(f"option 'kv_disk' of engine 'llamacpp': {error}") from None


def _check(files: ModelFiles, model: Model) -> None:
    if files.draft is not None and model.embedding:
        raise ConfigError("a draft model guesses text, and this model makes embeddings; remove 'draft'")
    if files.draft is not None and files.draft.is_dir():
        raise ConfigError("engine 'llamacpp' takes a GGUF file as draft model, and this is a folder")
    for name, path in files.adapters.items():
        if path.is_dir():
            raise ConfigError(
                f"engine 'llamacpp' takes adapters as GGUF files, and {name!r} is a folder; convert it with "
                "llama.cpp's convert_lora_to_gguf.py"
            )
    if model.pooling is not None and not model.embedding:
        raise ConfigError("'pooling' needs 'embedding: true'")
    if model.pooling is not None and model.pooling not in _POOLING:
        raise ConfigError(f"engine 'llamacpp' pools by {', '.join(_POOLING)}, not {model.pooling!r}")


def _environment(place: Place) -> dict[str, str]:
    env: dict[str, str] = {}
    root = Path(lumen.__file__).parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        # Run from a checkout, without being installed: the worker needs to find the same one.
        before = os.environ.get("PYTHONPATH")
        env["PYTHONPATH"] = f"{root}{os.pathsep}{before}" if before else str(root)
    if place.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, place.gpus))
    return env


ENGINE = LlamaCpp()
