"""`lumen logout`: forget a gateway elsewhere."""

from __future__ import annotations

import typer

from lumen.paths import paths as find_paths
from lumen_cli import choice, contexts, signon
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import command, note, say

app = command()


@app.command()
def logout(
    url: str | None = typer.Option(None, help="The gateway; default: the only one you are signed on at."),
) -> None:
    """Forget a gateway elsewhere, and give back what the sign-on there left open."""
    kept = contexts.contexts(find_paths().config_dir)
    found = kept.all()
    where = url or choice.chosen() or (next(iter(found)) if len(found) == 1 else None)
    if where is None:
        raise CliError("which gateway?", f"signed on at: {', '.join(found) or 'none'}", code=USAGE)
    context = kept.find(where)
    if context is None:
        raise CliError(f"you are not signed on at {where}", f"signed on at: {', '.join(found) or 'none'}")
    # First, so that it is gone whatever the others answer.
    kept.change(context.name, lambda before: None)
    try:
        if context.refresh is not None:
            signon.revoke(context)
        else:
            from lumen_cli.commands.login import ask

            ask(context, "/admin/logout", "POST")
    except CliError as error:
        note(f"It is forgotten here, but could not be ended there: {error.what}")
    say(f"You are signed on at {context.name} no more.")
