"""`lumen shadow`: what another target would have answered to a share of a route's requests, found out in the dark."""

from __future__ import annotations

import time
from pathlib import Path

import typer

from lumen.paths import paths as find_paths
from lumen_cli import trials
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.output import JSON, command, print_json, say, table
from lumen_cli.settings import config_file
from lumen_cli.trail import changed

app = command("Ask another target as well, after clients have their answers, and compare.")


@app.command()
def start(
    route: str = trials.ROUTE,
    candidate: str = trials.CANDIDATE,
    share: str = typer.Option("5%", metavar="SHARE", help="Of the route's requests, such as 5%."),
    budget: str = trials.BUDGET,
    judge: str | None = trials.JUDGE,
    check: str | None = trials.CHECKER,
    texts: bool = trials.TEXTS,
) -> None:
    """Begin. Clients notice nothing; it survives restarts and ends with its budget."""
    told = trials.do(
        "shadow", "start", route, candidate=candidate, share=share, budget=budget, judge=judge,
        checker=trials.checker(check), texts=texts,
    )  # fmt: skip
    say(f"{100 * told['share']:g} % of the requests of {route} are asked of {candidate} too, for at most {budget}.")
    if judge is None and check is None:
        say("Nobody judges the answers, so only cost, times and lengths are compared; see --judge and --check.")


@app.command()
def stop(route: str = trials.ROUTE) -> None:
    """End it; the report stays."""
    told = trials.do("shadow", "stop", route)
    say(f"The shadow of {route} has ended after {told['pairs']} pairs and {trials.usd(told['spent'])}.")


@app.command()
def status(json_output: bool = JSON) -> None:
    """Every shadow, those that ended too."""
    found = trials.ask("trials")
    if json_output:
        print_json({"dark": found["dark"], "shadows": found["shadows"]})
        return
    table(
        ("route", "candidate", "share", "pairs", "spent", "for", "state", "judge"),
        map(trials.shadow_row, found["shadows"]),
    )


@app.command()
def report(route: str = trials.ROUTE, json_output: bool = JSON) -> None:
    """Both sides of a route's newest shadow, with samples to read where texts are kept."""
    told = trials.ask("shadow", route)
    if json_output:
        print_json(told)
        return
    state = trials.shadow_state(told)
    say(f"{told['candidate']} beside {route}: {told['pairs']} pairs of {told['drawn']} drawn, {state}")
    say()
    trials.show_report(told)


@app.command()
def anchors(
    route: str = trials.ROUTE,
    file: Path = typer.Argument(help="JSON lines: prompt, first, second, and verdict: first, second or tie."),
    replace: bool = typer.Option(False, help="Those that the route had before go."),
) -> None:
    """Give a route pairs that a person has judged; its judges are held against them."""
    import msgspec

    from lumen.config.load import load, locate
    from lumen.ledger.labels import Anchor, Labels, LabelsError
    from lumen_cli.route_explain import route_of

    paths = find_paths()
    _, _, name = route_of(load(locate(None, config_file(None, paths, Admin(paths.admin_socket)))), route)
    read: list[Anchor] = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            read.append(msgspec.json.decode(line, type=Anchor))
            if read[-1].verdict not in ("first", "second", "tie"):
                raise msgspec.ValidationError("the verdict must be first, second or tie")
        except msgspec.MsgspecError as error:
            raise CliError(f"{file.name}, line {number}: {error}", code=USAGE) from None
    store = Labels(paths.ledger_file)
    try:
        count = store.anchor(name, read, int(time.time() * 1e6), replace=replace)
    except LabelsError as error:
        raise CliError(str(error)) from None
    finally:
        store.close()
    changed("shadow.anchors", name, given=len(read), now=count)
    say(f"{name} has {count} anchors.")
