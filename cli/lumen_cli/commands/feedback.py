"""`lumen feedback`: what an operator says of an answer."""

from __future__ import annotations

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import command, say

app = command()


@app.command()
def feedback(
    request: str = typer.Argument(help="The id of the request, as its answer's header x-request-id has it."),
    ok: bool | None = typer.Option(None, "--ok/--bad", help="Whether the answer was good."),
    score: float | None = typer.Option(None, min=0.0, max=1.0, help="How good it was, from 0 to 1."),
) -> None:
    """Say how good an answer was: it is learnt from, and canaries count it."""
    if (ok is None) == (score is None):
        raise CliError("say how good the answer was", "write --ok, --bad or --score 0.7", code=USAGE)
    value = float(bool(ok)) if score is None else score
    Admin(find_paths().admin_socket).post("/admin/feedback", {"request": request, "score": str(value)})
    say(f"{request}: {value:g}")
