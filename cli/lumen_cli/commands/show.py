"""`lumen show`: what a model file is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.output import JSON, command, print_json, size, table
from lumen_cli.settings import CONFIG, config_file

if TYPE_CHECKING:
    from lumen.hub.sizing import Facts
    from lumen_cli.kept import Kept

app = command()

_HIDDEN = ("kv_elements", "windows")


@app.command()
def show(
    model: str = typer.Argument(help="A model's name, a reference, or the path of a GGUF file."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Show what a model is and needs: architecture, context, quantisation, memory, chat template."""
    from lumen.config.load import load, locate
    from lumen.hub.pull import describe
    from lumen.hub.split import split_parts
    from lumen_cli.kept import find

    paths = find_paths()
    kept = find(model, paths, load(locate(config, config_file(config, paths))))
    files = list(kept.files) if kept.manifest else split_parts(kept.files[0])
    facts = describe(files)
    if json_output:
        plain = {key: value for key, value in asdict(facts).items() if key not in _HIDDEN}
        print_json(
            {**_origin(kept), "files": [str(path) for path in files], **plain, "kv_per_token": facts.kv_per_token}
        )
        return
    table(("", model), [*_origin(kept).items(), *_lines(facts), ("files", "\n".join(map(str, files)))])


def _origin(kept: Kept) -> dict[str, Any]:
    manifest = kept.manifest
    found: dict[str, Any] = {"name": kept.name, "reference": kept.reference}
    if manifest is not None:
        found |= {"commit": manifest.commit, "pulled": manifest.pulled}
    return found


def _lines(facts: Facts) -> list[tuple[str, Any]]:
    per_token = facts.kv_per_token
    kv = ", ".join(f"{kind} {size(count)}" for kind, count in per_token.items()) if any(per_token.values()) else None
    full = facts.tensor_bytes + facts.kv_bytes(facts.context_length)
    return [
        ("architecture", facts.architecture),
        ("parameters", f"{facts.parameters / 1e9:.2f} billion" if facts.parameters >= 1e8 else f"{facts.parameters:,}"),
        ("quantisation", facts.quantisation),
        ("context", f"{facts.context_length:,} tokens"),
        ("weights", size(facts.tensor_bytes)),
        ("KV cache a token", kv),
        ("memory with one full context", f"about {size(full)}"),
        ("chat template", "yes" if facts.chat_template else "no"),
        ("embeddings", f"yes, pooling {facts.pooling or 'by choice'}" if facts.embedding else "no"),
    ]
