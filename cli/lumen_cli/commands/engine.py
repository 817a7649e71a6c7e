"""`lumen engine`: engines that bring packages of their own, each in an environment apart from Lumen's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.bar import steps
from lumen_cli.client import Admin
from lumen_cli.errors import CliError
from lumen_cli.output import JSON, ago, command, note, print_json, say, size, table

if TYPE_CHECKING:
    from lumen.engines.install.environment import Environment

app = command("Install, list and remove engines that bring packages of their own.")


@app.command()
def install(
    engine: str = typer.Argument(help="vllm."),
    variant: str | None = typer.Option(None, help="cuda13, cuda12 or cpu; default: what suits this machine."),
    json_output: bool = JSON,
) -> None:
    """Make an engine's environment, or complete one whose installation was interrupted."""
    from lumen.engines.install.build import install as build
    from lumen.engines.install.recipes import recipes, suitable
    from lumen.engines.install.uv import InstallError
    from lumen.hardware import detect

    paths = find_paths()
    recipe, why = suitable(recipes(engine), detect(), variant)
    paths.make()
    paths.engines_dir.mkdir(mode=0o700, exist_ok=True)
    began = time.monotonic()
    note(f"{recipe.name} ({why})")
    try:
        with steps() as told:
            made = build(recipe, paths.engines_dir, told)
    except InstallError as error:
        raise CliError(
            f"{recipe.name}: {error.message}", "what was done is kept; run the same command again to go on",
            lines=error.lines,
        ) from None  # fmt: skip
    except TimeoutError:
        raise CliError(f"{recipe.name} is being installed by another command", "wait for it to end") from None
    if json_output:
        print_json(described(made))
        return
    say(f"{made.name} is ready after {ago(time.monotonic() - began)}: {size(made.size or 0)}.")
    note(f"To use it, give a model `engine: {made.engine}` in the configuration.")


@app.command()
def ls(json_output: bool = JSON) -> None:
    """List every engine: what is installed, which version, how large, and whether it can be used."""
    from lumen.engines.install.environment import environment, environments
    from lumen.engines.registry import engine as load
    from lumen.engines.registry import names

    root = find_paths().engines_dir
    found = environments(root)
    chosen = environment("vllm", root)
    if chosen is not None and chosen.own:
        found.append(chosen)
    built_in = [(name, load(name).missing()) for name in names() if name != "vllm"]
    if json_output:
        rows = [{**described(one), "used": one == chosen} for one in found]
        print_json([*({"engine": name, "ok": why is None, "trouble": why} for name, why in built_in), *rows])
        return
    lines: list[tuple[str, str, str | None, str]]
    lines = [(name, "part of Lumen", None, why or "ok") for name, why in built_in]
    for one in found:
        state = one.trouble() or ("ok" if one == chosen else "ok, but not the one that is used")
        lines.append(
            (one.engine, str(one.folder) if one.own else one.name, size(one.size) if one.size else None, state)
        )
    table(("engine", "installed as", "size", "state"), lines)
    if not found:
        note("vLLM is not installed: `lumen engine install vllm`.")


@app.command()
def rm(
    name: str = typer.Argument(help="An engine, or one of its environments as `lumen engine ls` names them."),
    json_output: bool = JSON,
) -> None:
    """Remove an engine's environments, half-made ones too."""
    from lumen.engines.install.environment import environments, remove

    root = find_paths().engines_dir
    folders = sorted(root.iterdir()) if root.is_dir() else []
    # A half-made one has no manifest; its name is all there is to go by.
    doomed = [f for f in folders if f.is_dir() and (f.name == name or f.name.startswith(f"{name}-"))]
    if not doomed:
        raise CliError(f"nothing called {name} is installed", "`lumen engine ls` lists what is")
    _check_unused({one.engine for one in environments(root) if one.folder in doomed})
    try:
        freed = sum(remove(folder) for folder in doomed)
    except TimeoutError:
        raise CliError(f"{name} is being installed at this moment", "wait for it to end") from None
    if json_output:
        print_json({"removed": [folder.name for folder in doomed], "freed": freed})
    else:
        say(f"{', '.join(folder.name for folder in doomed)} removed: {size(freed)} freed.")


def _check_unused(engines: set[str]) -> None:
    """Refuse to take an engine away from under models that a gateway runs with it: they could not be started again."""
    status = Admin(find_paths().admin_socket, timeout=3.0).status_or_none() or {}
    using = [
        model["name"]
        for model in status.get("models", [])
        if any(one["engine"] in engines and one["pid"] for one in model["replicas"])
    ]
    if using:
        told = "take them out of the configuration, or run `lumen down`, first"
        raise CliError(f"{', '.join(sorted(engines))} runs {', '.join(sorted(using))} at this moment", told)


def described(one: Environment) -> dict[str, Any]:
    """An environment for programs."""
    return {
        "engine": one.engine,
        "name": one.name,
        "version": one.version,
        "variant": one.variant,
        "cpu": one.cpu,
        "folder": str(one.folder),
        "own": one.own,
        "made": one.made,
        "size": one.size,
        "ok": one.trouble() is None,
        "trouble": one.trouble(),
    }
