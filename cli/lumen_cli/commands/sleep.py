"""`lumen sleep`: a local model gives its device memory back."""

from __future__ import annotations

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.output import command, say

app = command()


@app.command()
def sleep(model: str = typer.Argument(help="The local model.")) -> None:
    """Send a local model to sleep once its answers are done, or end it where its engine cannot sleep.

    The next request wakes it.
    """
    Admin(find_paths().admin_socket).post("/admin/sleep", {"model": model})
    say(f"Model {model} sleeps as soon as its answers are done.")
