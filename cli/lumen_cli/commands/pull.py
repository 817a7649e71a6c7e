"""`lumen pull`: fetch a model's files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumen.paths import Paths
from lumen.paths import paths as find_paths
from lumen_cli.bar import download_bar
from lumen_cli.client import Admin
from lumen_cli.output import JSON, command, note, print_json, say, size
from lumen_cli.settings import CONFIG, config_file, reload
from lumen_cli.trail import changed

if TYPE_CHECKING:
    from lumen.hub.store import Manifest

app = command()


@app.command()
def pull(
    reference: str = typer.Argument(help="hf://org/repo[:quant][@revision], an https:// address, or a path."),
    revision: str | None = typer.Option(None, help="A branch, tag or commit of a hub repository."),
    name: str | None = typer.Option(None, help="What to call it here; default: after the repository or file."),
    add: bool = typer.Option(False, "--add", help="Also add it to the configuration, so that it is served."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Fetch a model's files, or go on where an earlier try ended, and verify them."""
    from lumen.config.load import load, locate
    from lumen.hub.pull import Puller
    from lumen.hub.reference import parse, with_revision
    from lumen.hub.store import Store

    with_revision(parse(reference), revision)  # refused here, before anything is said or made
    paths = find_paths()
    paths.make()
    admin = Admin(paths.admin_socket)
    file = config_file(config, paths, admin)
    puller = Puller(Store(paths.models_dir), load(locate(config, file)).hub)
    with download_bar(reference) as told:
        manifest = asyncio.run(puller.pull(reference, revision=revision, name=name, progress=told))
    added = _add(manifest, file, admin) if add else None
    if json_output:
        print_json({**described(manifest, paths), "added": added})
        return
    verified = ", digest verified" if manifest.commit or "#sha256=" in manifest.reference else ""
    say(f"{manifest.name} is here: {manifest.quant or 'unknown quantisation'}, {size(manifest.size)}{verified}.")
    if added is not None:
        say(f"It is added to {file}: {added}.")
    else:
        note(f"To serve it: `lumen pull {manifest.reference} --add`.")


def _add(manifest: Manifest, file: Path, admin: Admin) -> str:
    from lumen.config.edit import edit, set_model
    from lumen.hub.reference import FOLDER

    asked = {"source": manifest.reference, **({"engine": "vllm"} if manifest.quant == FOLDER else {})}
    edit(file, lambda text: set_model(text, manifest.name, asked))
    changed("model.add", manifest.name, **asked)
    return reload(admin, file)


def described(manifest: Manifest, paths: Paths) -> dict[str, object]:
    """A stored model for programs."""
    from lumen.hub.store import Store

    store = Store(paths.models_dir)
    files = [{"path": str(store.path_of(f)), "size": f.size, "sha256": f.sha256} for f in manifest.files]
    return {
        "name": manifest.name,
        "reference": manifest.reference,
        "commit": manifest.commit,
        "quant": manifest.quant,
        "size": manifest.size,
        "pulled": manifest.pulled,
        "files": files,
        "whole": store.whole(manifest),
    }
