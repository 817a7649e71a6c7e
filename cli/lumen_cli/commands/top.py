"""`lumen top`: what goes on, live."""

from __future__ import annotations

import asyncio
import contextlib
from shlex import quote
from typing import Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli import choice
from lumen_cli.client import Admin
from lumen_cli.errors import CliError, NotRunning
from lumen_cli.output import JSON, command, print_json, say, table

app = command()

_MOST_FRAMES = 8


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


async def _first(admin: Admin) -> dict[str, Any]:
    """The first frame that tells of devices, which are asked only once somebody watches; or the last one waited for.

    Each tells only of the requests that ended since the one before: those of all are in it.
    """
    frames: list[dict[str, Any]] = []
    async with contextlib.aclosing(admin.events()) as events:
        async for frame in events:
            frames.append(frame)
            if frame.get("devices") or len(frames) == _MOST_FRAMES:
                break
    if not frames:
        raise NotRunning
    ended = [one for frame in frames for one in frame.get("ended", ())]
    return {**frames[-1], "ended": ended} if ended else frames[-1]


def _print(frame: dict[str, Any]) -> None:
    from lumen_cli.dashboard import columns, rows
    from lumen_cli.dashboard.board import Board
    from lumen_cli.dashboard.words import dollars, ms

    board = Board()
    board.take(frame)
    totals = board.totals
    say("\n".join(alarm.text for alarm in board.alarms()) or "all is well")
    say(
        f"{totals.rps:.1f} requests/s, {totals.tps:.0f} tokens/s, first token {ms(totals.p50)} / {ms(totals.p95)} / "
        f"{ms(totals.p99)} (p50/p95/p99), {totals.errors:.1%} errors, {dollars(totals.spent)} today, "
        f"{totals.in_flight} under way"
    )
    for heads, found in (
        (columns.ROUTES, rows.routes(frame["routes"])),
        (columns.TARGETS, rows.targets(frame["targets"], board.at)),
        (columns.REPLICAS, rows.replicas(frame["models"], board.at)),
        (columns.DEVICES, rows.devices(frame.get("devices", ()))),
        (columns.BUDGETS, rows.budgets(frame.get("money") or {})),
        (columns.TRIALS, rows.trials(frame.get("trials") or {}, board.at)),
        (columns.FAILOVERS, rows.failovers(frame["failovers"])[:5]),
        (columns.REQUESTS, rows.requests(board.matching("", 10))),
    ):
        if found:
            say()
            table([column.name for column in heads], [cells for _, cells in found])


def _serve(port: int) -> None:
    try:
        from textual_serve.server import Server
    except ImportError:
        raise CliError("the browser needs the package textual-serve", "install it beside Lumen") from None
    url = choice.chosen()
    command = "lumen top" if url is None else f"lumen --url {quote(url)} top"
    Server(command, host="127.0.0.1", port=port, title="Lumen").serve()
