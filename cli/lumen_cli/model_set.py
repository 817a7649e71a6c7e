"""`lumen models set` and `rm`: how a local model is served, in the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.limits import NONE, checked, pair, value
from lumen_cli.output import say
from lumen_cli.settings import CONFIG, config_file, declared_model, reload
from lumen_cli.trail import changed

_COUNT = "COUNT"
_TIME = "DURATION"
_NAME: str = typer.Argument(help="A model of the configuration.")
_SOURCE: str | None = typer.Option(None, help="Another file, hub reference or engine's model name.")
_CONTEXT: str | None = typer.Option(None, metavar="TOKENS", help="The most of one prompt and its answer.")
_SLOTS: str | None = typer.Option(None, metavar=_COUNT, help="Answers that one process generates at once.")
_REPLICAS: str | None = typer.Option(None, metavar=_COUNT, help="Processes to start with.")
_MIN_REPLICAS: str | None = typer.Option(None, metavar=_COUNT, help="What idleness leaves of them.")
_MAX_REPLICAS: str | None = typer.Option(None, metavar=_COUNT, help="What load may make of them.")
_KEEP_ALIVE: str | None = typer.Option(None, metavar=_TIME, help="So long after its last request it sleeps.")
_IDLE_AFTER: str | None = typer.Option(None, metavar=_TIME, help="So long after its last request its processes end.")
_MIN_RESIDENCY: str | None = typer.Option(
    None, metavar=_TIME, help="So long after it was loaded it is not sent away for another model."
)
_PINNED: bool | None = typer.Option(None, "--pinned/--not-pinned", help="Never sent away for another model.")
_RESERVE: bool | None = typer.Option(
    None, "--reserve/--no-reserve", help="Keep its memory free for it while it is away."
)
_PREWARM: bool | None = typer.Option(
    None, "--prewarm/--no-prewarm", help="Load it before the hours of the week in which it is usually asked for."
)
_QUEUE: str | None = typer.Option(None, metavar=_COUNT, help="Requests that may wait for it.")
_START_TIMEOUT: str | None = typer.Option(None, metavar=_TIME, help="How long its start may take.")
_KV_TYPE: str | None = typer.Option(None, metavar="TYPE", help="Of the KV cache: f16 (default), q8_0 or q4_0.")
_GPU_LAYERS: str | None = typer.Option(None, metavar=_COUNT, help="Layers on cards; -1: all.")
_THREADS: str | None = typer.Option(None, metavar=_COUNT, help="Of the processor.")
_DRAFT: str | None = typer.Option(None, metavar="MODEL", help="A small model that guesses ahead.")
_ADAPTER: list[str] | None = typer.Option(
    None, metavar="NAME=FILE", help="A LoRA adapter, served as MODEL:NAME; `NAME=` removes it. Repeat."
)
_OPTION: list[str] | None = typer.Option(
    None, metavar="NAME=VALUE", help="An option of its engine; `NAME=` removes it. Repeat."
)


def set_(
    name: str = _NAME,
    source: str | None = _SOURCE,
    context: str | None = _CONTEXT,
    slots: str | None = _SLOTS,
    replicas: str | None = _REPLICAS,
    min_replicas: str | None = _MIN_REPLICAS,
    max_replicas: str | None = _MAX_REPLICAS,
    keep_alive: str | None = _KEEP_ALIVE,
    idle_after: str | None = _IDLE_AFTER,
    min_residency: str | None = _MIN_RESIDENCY,
    pinned: bool | None = _PINNED,
    reserve: bool | None = _RESERVE,
    prewarm: bool | None = _PREWARM,
    queue: str | None = _QUEUE,
    start_timeout: str | None = _START_TIMEOUT,
    kv_type: str | None = _KV_TYPE,
    gpu_layers: str | None = _GPU_LAYERS,
    threads: str | None = _THREADS,
    draft: str | None = _DRAFT,
    adapter: list[str] | None = _ADAPTER,
    option: list[str] | None = _OPTION,
    config: Path | None = CONFIG,
) -> None:
    """Change how a model of the configuration is served; what is not given stays, `none` takes a setting back."""
    counts = {"context": context, "slots": slots, "replicas": replicas, "min_replicas": min_replicas,
              "max_replicas": max_replicas, "queue": queue, "gpu_layers": gpu_layers, "threads": threads}  # fmt: skip
    texts = {"source": source, "keep_alive": keep_alive, "idle_after": idle_after, "min_residency": min_residency,
             "start_timeout": start_timeout, "kv_type": kv_type, "draft": draft}  # fmt: skip
    flags = {"pinned": pinned, "reserve": reserve, "prewarm": prewarm}
    change: dict[str, Any] = {word: _count(word, text) for word, text in counts.items() if text is not None}
    change |= {word: None if text.lower() == NONE else text for word, text in texts.items() if text is not None}
    change |= {word: flag for word, flag in flags.items() if flag is not None}
    if adapter:
        change["adapters"] = {key: text or None for key, text in map(pair, adapter)}
    if option:
        change["options"] = {key: value(text) for key, text in map(pair, option)}
    if not change:
        raise CliError("nothing to set", f"write `lumen models set {name} --idle-after 1h`", code=USAGE)
    _write(name, change, config)


def _write(name: str, change: dict[str, Any], config: Path | None) -> None:
    """Have the file say so, and a running gateway take it over."""
    from lumen.config.edit import edit, set_model

    paths = find_paths()
    admin = Admin(paths.admin_socket)
    path = config_file(config, paths, admin)
    declared_model(name, path)
    edit(path, lambda text: set_model(text, name, change))
    changed("model.set", name, **change)
    say(f"Model {name} is written to {path}: {reload(admin, path)}.")


def rm(name: str = _NAME, config: Path | None = CONFIG) -> None:
    """Take a model out of the configuration; its file stays on this disk, where `lumen rm` removes it."""
    from lumen.config.edit import edit, remove_model

    paths = find_paths()
    admin = Admin(paths.admin_socket)
    path = config_file(config, paths, admin)
    declared_model(name, path)
    edit(path, lambda text: remove_model(text, name))
    changed("model.rm", name)
    say(f"Model {name} is removed from {path}: {reload(admin, path)}.")


def _count(word: str, text: str) -> int | None:
    return None if text.strip().lower() == NONE else checked(word, text, _whole)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a whole number") from None
