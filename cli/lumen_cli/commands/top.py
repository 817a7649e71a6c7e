"""`lumen top`: what goes on, live."""

from __future__ import annotations

import asyncio
from shlex import quote

import typer

from lumen.paths import paths as find_paths
from lumen_cli import choice
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning
from lumen_cli.output import JSON, command, print_json, say, table

app = command()


@app.command()
def top(
    once: bool = typer.Option(False, "--once", help="Print one frame as text and end."),
    serve: bool = typer.Option(False, "--serve", help="Show it in the browser instead, on a loopback port."),
    port: int = typer.Option(8866, min=1, max=65535, help="The port for --serve."),
    json_output: bool = JSON,
) -> None:
    """What goes on: speed, cost, targets, failovers, requests, engines.

    Keys are shown with `?`. It reads from the running gateway and changes nothing unless you press a key that says so.
    """
    admin = Admin(find_paths().admin_socket)
    if once or json_output:
        frame = asyncio.run(_first(admin))
        if json_output:
            print_json(frame)
        else:
            _print(frame)
    elif serve:
        _serve(port)
    else:
        from lumen_cli.dashboard.app import Dashboard

        if admin.status_or_none() is None:
            raise NotRunning
        Dashboard(admin).run()


async def _first(admin: Admin) -> dict[str, object]:
    async for frame in admin.events():
        return frame
    raise NotRunning


def _print(frame: dict[str, object]) -> None:
    from lumen_cli.dashboard import rows
    from lumen_cli.dashboard.board import Board

    board = Board()
    board.take(frame)
    totals = board.totals
    say("  ".join(board.alarms()) or "all is well")
    say(
        f"{totals.rps:.1f} requests/s, {totals.tps:.0f} tokens/s, first token {rows.ms(totals.p50)} / "
        f"{rows.ms(totals.p95)} / {rows.ms(totals.p99)} (p50/p95/p99), {totals.errors:.1%} errors, "
        f"${totals.spent:.2f} today, {totals.in_flight} under way"
    )
    for columns, found in (
        (rows.ROUTES, rows.routes(board.frame["routes"])),
        (rows.TARGETS, rows.targets(board.frame["targets"])),
        (rows.REPLICAS, rows.replicas(board.frame["models"])),
        (rows.TRIALS, rows.trials(board.frame.get("trials") or {})),
        (rows.FAILOVERS, rows.failovers(board.frame["failovers"])[:5]),
        (rows.REQUESTS, rows.requests(board.matching(""))[:10]),
    ):
        if found:
            say()
            table(columns, [cells for _, cells in found])


def _serve(port: int) -> None:
    try:
        from textual_serve.server import Server
    except ImportError:
        raise CliError("the browser needs the package textual-serve", "install it beside Lumen") from None
    url = choice.chosen()
    command = "lumen top" if url is None else f"lumen --url {quote(url)} top"
    Server(command, host="127.0.0.1", port=port, title="Lumen").serve()
