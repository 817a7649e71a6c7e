"""`lumen route saved`: what a route saved against asking its strong target always, and what that may have lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import CliError
from lumen_cli.output import JSON, moment, print_json, say, table
from lumen_cli.settings import CONFIG, config_file
from lumen_cli.since import moment_of
from lumen_cli.trials import percent


def saved(
    name: str = typer.Argument(help="The route."),
    since: str = typer.Option("30d", metavar="TIME", help="How far back, such as 24h or 7d, or a date: 2026-11-01."),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Say what a route saved against asking its strong target always, with everything that it took taken off.

    What others answered is reckoned at the strong target's price of now, for the tokens in the ledger; shadows,
    canaries and judges are taken off. Beside it stands how much quality that may have lost, as it was certified.
    """
    start = moment_of(since, time.time())
    found = _found(name, start, config)
    if json_output:
        print_json(found)
    else:
        _show(found, start)


def _found(name: str, start: int, config: Path | None) -> dict[str, Any]:
    from lumen.config.load import load, locate
    from lumen.learning.savings import saved as reckoned
    from lumen.ledger.report import reading
    from lumen_cli.route_explain import route_of, targets_of

    paths = find_paths()
    settings = load(locate(None, config_file(config, paths, Admin(paths.admin_socket))))
    route, _, learns = route_of(settings, name)
    candidates, goal = targets_of(settings, route, learns)
    strong = candidates[goal.strong]
    if strong.price is None:
        raise CliError(f"what {strong.name} costs is not known", "give it a price in the configuration")
    with reading(paths.ledger_file) as ledger:
        sums = reckoned(ledger.tries(learns, start), strong.name, strong.price)
    return {
        "route": learns, "since": start, "strong": strong.name, "requests": sums.requests, "away": sums.away,
        "unpriced": sums.unpriced,
        **{f"{what}_usd": _usd(getattr(sums, what)) for what in ("always_strong", "paid", "dark", "saved")},
        "promise": _promise(learns),
    }  # fmt: skip


def _promise(route: str) -> dict[str, Any] | None:
    """What the scorer in force promises of the loss of quality; `None`: there is none."""
    from lumen.learning.shelf import Shelf

    live = Shelf(find_paths().scorers_dir).current(route)
    if live is None:
        return None
    from lumen.routing.auto.model import Model, ModelError

    try:
        model = Model.from_bytes(live[1])
    except ModelError:
        return None
    known = {name: one for name in model.targets if (one := model.promise_of(name)) is not None}
    return {
        "version": live[0],
        "labels": model.labels,
        "targets": {
            name: {"loss_at_most": one.bound if one.score is not None else 0.0, "confidence": one.confidence}
            for name, one in known.items()
        },
    }


def _show(found: dict[str, Any], start: int) -> None:
    count, away, strong = found["requests"], found["away"], found["strong"]
    say(f"Since {moment(start)}: {count:,} requests, {away:,} of them ({_share(away, count)}) answered by others.")
    say()
    rows = [(f"asking {strong} always", found["always_strong_usd"]), ("as it was asked", found["paid_usd"]),
            ("  of that in the dark (shadows, judges)", found["dark_usd"]), ("saved", found["saved_usd"])]  # fmt: skip
    table(("", "cost"), [(what, f"${value:,.6f}".replace("$-", "-$")) for what, value in rows])
    say()
    say(f"At today's price of {strong}, for the tokens that were counted.")
    if found["unpriced"]:
        say(f"Of {found['unpriced']:,} of the others' answers the price is not known: they count for nothing.")
    promise = found["promise"]
    if promise is None:
        say("Nothing is learnt, so nothing is promised of the quality.")
        return
    for name, one in promise["targets"].items():
        say(
            f"Version {promise['version']}, from {promise['labels']} labels: with {name} at most "
            f"{100 * one['loss_at_most']:.2f} points of quality are lost over all requests, at {one['confidence']:.0%}."
        )


def _share(part: int, whole: int) -> str:
    return percent(part / whole if whole else None)


def _usd(pico: int) -> float:
    return round(pico / 1e12, 9)
