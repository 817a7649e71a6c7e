"""`lumen route explain`: which target a request would be sent to, and why, by the running gateway or from the files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from lumen.paths import paths as find_paths
from lumen_cli.client import Admin
from lumen_cli.errors import USAGE, CliError
from lumen_cli.limits import AMOUNTS
from lumen_cli.output import JSON, note, print_json, say, table
from lumen_cli.settings import CONFIG, config_file

if TYPE_CHECKING:
    from lumen.config.schema import Config, Route
    from lumen.routing.base import Step
    from lumen.routing.plan.view import Candidate, Goal, Past

_LARGEST = 48 * 1024
_AUTO = "lumen/auto"
_PIN = "x-lumen-pin"


def explain(
    name: str = typer.Argument(help="The route, as clients ask for it."),
    prompt: str | None = typer.Option(None, metavar="TEXT", help="What the user asks; `-` reads standard input."),
    file: Path | None = typer.Option(None, metavar="FILE.json", help="A whole chat request, as clients send it."),
    header: list[str] | None = typer.Option(
        None, metavar="'NAME: VALUE'", help="A header that it brings, such as 'x-lumen-tags: app=batch'; repeat."
    ),
    config: Path | None = CONFIG,
    json_output: bool = JSON,
) -> None:
    """Say which target a request would go to now, and why.

    Shown for each target: the chance of a good answer, the quality expected to be lost against the strong target, the
    tokens and the cost expected, and what keeps it from being asked first. Nothing is sent to any target. Without a
    running gateway, or with --config, the answer comes from the files: health, times and conversations are not known.
    """
    request, headers = _request(name, prompt, file), dict(map(_header, header or ()))
    admin = Admin(find_paths().admin_socket)
    if config is None and admin.status_or_none() is not None:
        found = admin.post("/admin/explain", {"route": name, "request": request, "headers": json.dumps(headers)})
        _gathered(admin, name, found)
        _steered(admin, name, found)
    else:
        note("no running gateway is asked: what the files say")
        found = offline(config_file(config, find_paths(), admin), name, request, headers)
    if json_output:
        print_json(found)
    else:
        _show(found)


def _gathered(admin: Admin, name: str, found: dict[str, Any]) -> None:
    """Beside "nothing is learnt yet": what there is to learn from so far."""
    learnt = found.get("learnt", {"version": ""})
    if learnt["version"] is None:
        # Of a model that is no route of the configuration nothing is gathered.
        with suppress(CliError):
            learnt["gathered"] = admin.get(f"/admin/learn/{quote(name, safe='/')}")["labels"]


def _steered(admin: Admin, name: str, found: dict[str, Any]) -> None:
    """A canary that has a part of the route's conversations, whatever the policy says of them."""
    moving = admin.get("/admin/trials").get("canaries", ())
    found["canary"] = next(
        (
            {"candidate": one["candidate"], "percent": one["percent"]}
            for one in moving
            if one["route"] == name and one["phase"] in ("running", "waiting", "promoting")
        ),
        None,
    )


def _request(route: str, prompt: str | None, file: Path | None) -> str:
    """The chat request as JSON."""
    if (prompt is None) == (file is None):
        raise CliError("give --prompt or --file", f"write `lumen route explain {route} --prompt 'Hello'`", code=USAGE)
    if file is not None:
        try:
            body = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise CliError(f"{file} cannot be read: {error}", "it holds a chat request as JSON", code=USAGE) from None
        if not isinstance(body, dict):
            raise CliError(f"{file} is no chat request", 'it holds {"messages": […]}', code=USAGE)
        body.setdefault("model", route)
    else:
        text = sys.stdin.read() if prompt == "-" else prompt
        body = {"model": route, "messages": [{"role": "user", "content": text}]}
    written = json.dumps(body, ensure_ascii=False)
    if len(written.encode()) > _LARGEST:
        raise CliError("the request is too long to be explained", "its beginning, up to 48 KiB, decides as well")
    return written


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise CliError(f"--header {text}: no header", "write --header 'x-lumen-tags: app=batch'", code=USAGE)
    return name.strip().lower(), value.strip()


class _Nothing:
    """What a process that does not run knows of its targets, but for what routes have learnt."""

    def __init__(self, scorers: Mapping[str, Any]) -> None:
        self._scorers = scorers

    def out(self, names: Sequence[str]) -> Mapping[str, str]:
        return {}

    def first_token(self, name: str) -> float | None:
        return None

    def per_token(self, name: str) -> float | None:
        return None

    def answer(self, name: str) -> float | None:
        return None

    def wakes(self, name: str) -> float:
        return 0.0

    def past(self, thread: int) -> Past | None:
        return None

    def scorer(self, route: str) -> tuple[Any, str]:
        found: tuple[Any, str] = self._scorers.get(route, (None, "nothing is learnt yet"))
        return found


def offline(path: Path, name: str, request: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The decision as the files have it.

    Raises:
        CliError: there is no such route, or its policy cannot be asked here.
    """
    from lumen.config.load import load, locate
    from lumen.core.errors import RequestError
    from lumen.core.meter import meets
    from lumen.learning.shelf import Shelf
    from lumen.routing.base import policy
    from lumen.routing.plan import scorers
    from lumen.routing.plan.explain import DEAR, UNPRICED, explained
    from lumen.routing.plan.rules import ruled
    from lumen.routing.plan.view import View
    from lumen.wire.call import chat_call
    from lumen.wire.parse import parse_chat

    settings = load(locate(None, path))
    route, used, learns = route_of(settings, name)
    if used.endswith(".py"):
        raise CliError(f"{name} is routed by {used}, which only a running gateway asks", "start it with `lumen up`")
    candidates, goal = targets_of(settings, route, learns)
    known = _Nothing(scorers.read(Shelf(find_paths().scorers_dir), [learns]))
    body = request.encode()
    try:
        call = chat_call(parse_chat(body))
    except RequestError as error:
        raise CliError(error.message, "give a chat request as clients send it", code=USAGE) from None
    view = View(goal, known, lambda: 0.5, (call, len(body), "", headers))
    ceilings = [c for c in (route.budget.max_cost, settings.server.budget.max_cost) if c is not None]
    met = [c for c in candidates if not ceilings or meets(c.price, min(ceilings))]
    limited = any(getattr(limits, amount) is not None for limits in (route.budget, settings.server.budget)
                  for amount in AMOUNTS)  # fmt: skip
    paid = [c for c in met if not limited or c.price is not None]
    able = [c for c in met or candidates if view.lacks(c) is None] or met or candidates
    planned = _pinned(headers, candidates, name) or ruled(policy(used)(able, view), view)
    steps = [step for step in planned if candidates[step.key] in paid]
    if not steps:
        raise CliError(f"no target of {name} may be asked: none has a known price within what is allowed",
                       "see `budget` of the route and the server, and the prices of its targets")  # fmt: skip
    left_out = {c.name: DEAR if c not in met else UNPRICED for c in candidates if c not in paid}
    return explained(candidates, view, steps, used, left_out) | {"route": name}


def _pinned(headers: Mapping[str, str], candidates: Sequence[Candidate], route: str) -> list[Step]:
    """The one target that the request insists on, where it does.

    Raises:
        CliError: the route has no such target.
    """
    from lumen.routing.base import Step

    pin = headers.get(_PIN)
    found = [Step(one.key, "pinned by the client") for one in candidates if one.name == pin]
    if pin is not None and not found:
        raise CliError(f"'{pin}' is no target of '{route}'", f"{_PIN} names one of its targets", code=USAGE)
    return found


def route_of(config: Config, name: str) -> tuple[Route, str, str]:
    """The route, its policy, and the route whose learning it goes by; `lumen/auto` is there although nobody wrote it.

    Raises:
        CliError: there is no such route.
    """
    if name in config.routes:
        return config.routes[name], config.routes[name].policy, name
    first = next(iter(config.routes), None)
    if name == _AUTO and first is not None:
        return config.routes[first], "auto", first
    from difflib import get_close_matches

    near = get_close_matches(name, [*config.routes], 1)
    raise CliError(f"there is no route {name!r}", f"did you mean {near[0]!r}?" if near else "see `lumen route ls`")


def targets_of(config: Config, route: Route, name: str) -> tuple[list[Candidate], Goal]:
    """A route's targets as its policy sees them, and what it is to reach, from the files."""
    from lumen.catalogue import Catalogue
    from lumen.config.adapters import model_of
    from lumen.config.remotes import price_of
    from lumen.core.money import FREE
    from lumen.routing.plan.rules import rulings
    from lumen.routing.plan.view import Candidate, Goal

    catalogue = Catalogue.of(config)
    found = []
    for key, target in enumerate(route.targets):
        provider, slash, model = target.model.partition("/")
        if slash and provider in config.providers:
            known = catalogue.entry(provider, model)
            can = known.capabilities
            found.append(
                Candidate(key, target.model, target.weight, known.price, known.context, can.tools, can.images,
                          can.json_schema)
            )  # fmt: skip
            continue
        local = config.models.get(model_of(target.model, config.models))
        price = price_of(local.price) if local is not None and local.price is not None else FREE
        context = local.context if local is not None else None
        found.append(Candidate(key, target.model, target.weight, price, context, local=True))
    names = tuple(target.model for target in route.targets)
    strong = 0 if route.strong is None else names.index(route.strong)
    rules = rulings(route.rules, names)
    return found, Goal(name, names, strong, route.quality, route.max_loss, route.confidence, rules)


def _show(found: dict[str, Any]) -> None:
    from lumen.core.money import MICRO, shown

    asked, learnt = found["request"], found["learnt"]
    say(f"{found['route']} ({found['policy']}) asks {found['choice']}: {found['reason']}")
    say()
    facts = [f"about {asked['tokens']} tokens", f"turn {asked['turns']}"]
    facts += [f"{asked[what]} {what}" for what in ("tools", "images") if asked[what]]
    facts += ["JSON"] * asked["json"] + [f"at most {asked['limit']} tokens"] * bool(asked["limit"])
    say(f"request   {', '.join(facts)}")
    if learnt["version"] is None:
        gathered = ", ".join(f"{count} by {source}" for source, count in learnt.get("gathered", {}).items())
        told = f" (labels so far: {gathered}; at least 300 are needed)" if gathered else ""
        say(f"learnt    {learnt['why']}{told}; strong target: {found['strong']}")
    else:
        say(f"learnt    {learnt['labels']} labels, version {learnt['version']}; strong target: {found['strong']}")
        for name, one in learnt["certified"].items():
            say(f"          {name}: {one['why']}; loss at most {one['bound']:.2%} at {one['confidence']:.0%}")
    if found.get("canary"):
        part = found["canary"]
        say(f"canary    {part['candidate']} gets {part['percent']:g} % of the conversations, whatever stands here")
    say()
    rows = [
        (
            one["target"],
            "-" if one["good"] is None else f"{one['good']:.0%}",
            "-" if one["loss"] is None else f"{100 * one['loss']:+.1f}",
            one["tokens"],
            "-" if one["cost"] is None else shown(one["cost"] * MICRO),
            "-" if one["first_token_ms"] is None else f"{one['first_token_ms']} ms",
            one["left_out"] or one["reason"] or "-",
        )
        for one in found["targets"]
    ]
    table(("target", "good", "loss, points", "tokens", "cost", "first token", "why"), rows)
