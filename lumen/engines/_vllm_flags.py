"""A model's `options` as flags of vLLM's server: every one there is, but for what is Lumen's own to set. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lumen.core.errors import ConfigError
from lumen.engines._options import nearest

_OWN = "Lumen sets it itself"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("model", "served-model-name", "host", "port", "uds", "api-key", "root-path", "headless"), _OWN),
    **dict.fromkeys(("grpc", "grpc-port", "ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs"), _OWN),
    "max-model-len": "write `context` of the model",
    "trust-remote-code": "Lumen runs no code that comes with a model",
    "trust-request-chat-template": "Lumen renders no template that comes with a request",
    "trust-request-mm-kwargs": "Lumen passes no such arguments on",
    "config": "write the flags as options",
    "hf-token": "Lumen gives engines no secrets; `lumen pull` fetches models",
}  # fmt: skip
# Loaders that unpickle.
_UNSAFE_FORMATS = frozenset({"pt", "npcache", "fastsafetensors_pt"})


def argv(options: Mapping[str, Any], known: Mapping[str, str]) -> list[str]:
    """The words for `options`.

    Args:
        options: names with `-` or `_`; `null` leaves a flag out.
        known: flag → what it takes: `value`, `many` values, or nothing (`on`; `switch`, which `--no-` turns off).

    Raises:
        ConfigError: names the option, what is wrong with it, and the nearest valid name.
    """
    words: list[str] = []
    for name, value in options.items():
        flag = str(name).replace("_", "-")
        if flag in _REFUSED:
            raise ConfigError(f"option {name!r} of engine 'vllm' is not for options: {_REFUSED[flag]}")
        kind = known.get(flag)
        if kind is None:
            raise ConfigError(f"engine 'vllm' has no option {name!r}; {_hint(flag, known)}")
        if flag == "load-format" and value in _UNSAFE_FORMATS:
            raise ConfigError(f"option {name!r} of engine 'vllm' must not be {value!r}: such files can run code")
        if value is not None:
            words += _words(str(name), flag, kind, value)
    return words


def _words(name: str, flag: str, kind: str, value: Any) -> list[str]:
    if kind in ("on", "switch"):
        if not isinstance(value, bool):
            raise ConfigError(f"option {name!r} of engine 'vllm' must be true or false, not {value!r}")
        return [f"--{flag}"] if value else [f"--no-{flag}"] * (kind == "switch")
    if kind == "many":
        values = value if isinstance(value, list) else [value]
        # One word with `=` cannot be taken for a flag, whatever it begins with; further ones could.
        if any(str(one).startswith("-") for one in values) or not values:
            raise ConfigError(f"option {name!r} of engine 'vllm' takes one or more words that begin with no dash")
        return [f"--{flag}", *(_word(one) for one in values)]
    return [f"--{flag}={_word(value)}"]


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    # Numbers as they are written; lists and mappings are JSON to vLLM.
    return json.dumps(value, separators=(",", ":"))


def _hint(flag: str, known: Mapping[str, str]) -> str:
    return nearest(flag, tuple(sorted(name for name in known if name not in _REFUSED)))
