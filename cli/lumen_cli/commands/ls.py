"""`lumen ls`: the model files on this disk."""

from __future__ import annotations

from lumen.paths import paths as find_paths
from lumen_cli.output import JSON, command, note, print_json, size, table

app = command()


@app.command()
def ls(json_output: bool = JSON) -> None:
    """List the models that were pulled to this disk."""
    from lumen.hub.store import Store
    from lumen_cli.commands.pull import described

    paths = find_paths()
    store = Store(paths.models_dir)
    found = store.all()
    if json_output:
        print_json([described(manifest, paths) for manifest in found])
        return
    if not found:
        note("No models were pulled yet: `lumen pull hf://org/repo` fetches one; builtin:tiny is always there.")
        return
    rows = [
        (
            manifest.name,
            manifest.quant,
            size(manifest.size) if store.whole(manifest) else "files missing",
            manifest.pulled[:10],
            manifest.reference,
        )
        for manifest in found
    ]
    table(("name", "quantisation", "size", "pulled", "from"), rows)
