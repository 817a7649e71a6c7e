"""`lumen canary`: a candidate gets a growing share of a route's conversations, as long as the evidence allows."""

from __future__ import annotations

import typer

from lumen_cli import trials
from lumen_cli.output import JSON, command, moment, print_json, say, table

app = command("Shift a route to another target step by step, guarded; promoted and rolled back by itself.")


@app.command()
def start(
    route: str = trials.ROUTE,
    candidate: str = trials.CANDIDATE,
    steps: str = typer.Option(
        "1,5,25,50,100", metavar="PERCENT,…", help="Percent of the conversations, rising to 100."
    ),
    guard: str | None = typer.Option(
        None, metavar="NAME,…", help="quality, ttft, cost, errors; default: all, quality where somebody judges."
    ),
    margin: list[str] | None = typer.Option(
        None, metavar="NAME=SHARE", help="How much worse is still good enough, such as quality=5%; repeat."
    ),
    judge: str | None = trials.JUDGE,
    check: str | None = trials.CHECKER,
    feedback: bool = typer.Option(False, "--feedback", help="Clients' feedback says how good answers are."),
    share: str = typer.Option("10%", metavar="SHARE", help="Of the answers, those that are judged."),
    budget: str = trials.BUDGET,
    texts: bool = trials.TEXTS,
    most: int = typer.Option(20_000, min=1, help="Answers of the candidate after which it must have convinced."),
    dwell: int = typer.Option(20, min=1, help="Answers of the candidate that each step needs."),
    wait: bool = typer.Option(False, "--wait", help="Do not promote before `lumen canary approve`."),
) -> None:
    """Begin with the first step. It survives restarts; `lumen canary status` tells how it goes."""
    told = trials.do(
        "canary", "start", route, candidate=candidate, steps=steps, guard=guard, margin=margin or [], judge=judge,
        checker=trials.checker(check), feedback=feedback, share=share, budget=budget, texts=texts, most=most,
        dwell=dwell, wait=wait,
    )  # fmt: skip
    guards = ", ".join(told["guards"])
    say(f"{candidate} gets {told['percent']:g} % of the conversations of {route}, guarded by {guards}.")
    if told["decides"]:
        say(f"Once promoted it is the first of the targets, of which the policy of {route}, {told['policy']}, chooses.")


@app.command()
def status(route: str | None = typer.Argument(None, help="Only this route's."), json_output: bool = JSON) -> None:
    """Every canary: its step, its evidence, its history."""
    found = [one for one in trials.ask("trials")["canaries"] if route in (None, one["route"])]
    if json_output:
        print_json(found)
        return
    table(("route", "candidate", "state", "share", "answers", "evidence", "for"), map(trials.canary_row, found))
    for one in found if route is not None else ():
        say()
        for at, what in one["history"]:
            say(f"{moment(at)}  {what}")
        if one["why"]:
            say(one["why"])


@app.command()
def report(route: str = trials.ROUTE, json_output: bool = JSON) -> None:
    """The pairs that were judged for a route's newest canary."""
    told = trials.ask("canary", route)
    if json_output:
        print_json(told)
        return
    trials.show_report(told)


@app.command()
def approve(route: str = trials.ROUTE) -> None:
    """Promote it now: it becomes the route's first target in the configuration."""
    told = trials.do("canary", "approve", route)
    say(f"{told['candidate']} is promoted on {route}." if told["phase"] == "promoted" else told["why"])


@app.command()
def rollback(route: str = trials.ROUTE) -> None:
    """End it against the candidate; of one that was promoted the targets of before are written back."""
    told = trials.do("canary", "rollback", route)
    say(f"{told['candidate']} is rolled back on {route}.")


@app.command()
def stop(route: str = trials.ROUTE) -> None:
    """End it without a verdict; the route goes on as before."""
    told = trials.do("canary", "stop", route)
    say(f"The canary of {route} has ended after {told['answers']} answers of {told['candidate']}.")
