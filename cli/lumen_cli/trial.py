"""The course of `lumen provider test`: list the models, ask one, and compare what it can do with what was declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lumen.catalogue import Catalogue, Vendor
from lumen.core.money import shown
from lumen.providers.base import module
from lumen_cli.abilities import MOST, probe
from lumen_cli.errors import CliError
from lumen_cli.probing import INPUT, SHORT, Refused, Target, listed
from lumen_cli.vendor_client import VendorClient

if TYPE_CHECKING:
    from lumen.config.schema import Config
    from lumen.secrets import Secret

_BEGUN = {
    "continued": "continued",
    "repeated": "repeated, then continued",
    "starts over": "begun anew",
    "refused": "refused",
    "unclear": "now this, now that",
}


@dataclass(frozen=True, slots=True)
class Probing:
    """That what a model can do is to be found out. `most`: pico-dollars it may cost; `limited`: that was asked for.

    `tell`: hears what it comes to at most before anything is asked.
    """

    most: int
    limited: bool
    tell: Callable[[str], None]


def run(
    vendor: Vendor,
    config: Config,
    secret: Secret | None,
    *,
    model: str | None,
    probing: Probing | None,
    timeout: float,
) -> dict[str, Any]:
    """What was found, ready for JSON.

    `ok`: address and key are right. `error`, `next`: what is not, and what to do. `key`: `accepted`, `refused`,
    `unchecked` or `none`. `models`: how many are listed. `answered_ms`: how long the one request took. `differs`:
    capability → `[declared, found]`. `begun`: what it does with an answer that is begun, see `probe`.
    """
    own = dict(vendor.headers)
    headers = own | module(vendor.dialect).headers(secret.reveal()) if secret is not None else own
    client = VendorClient(vendor.base_url, headers, timeout)
    found: dict[str, Any] = {
        "provider": vendor.name, "address": vendor.base_url, "ok": False, "error": None, "next": None,
        "key": "unchecked" if secret else "none", "models": None, "model": model, "answered_ms": None,
        "probed": None, "begun": None, "differs": {},
    }  # fmt: skip
    try:
        _look(vendor, config, client, found, probing=probing)
        found["ok"] = True
    except Refused as error:
        found["error"], found["next"] = _refusal(vendor, error, found)
    except CliError as error:
        found["error"], found["next"] = error.what, error.hint
    return found


def summary(found: dict[str, Any]) -> list[str]:
    """The same in words, a line each."""
    lines = [f"address   {found['address']}"]
    unchecked = "not checked" + (": anyone may list its models; give --model" if found["ok"] else "")
    keys = {"accepted": "accepted", "refused": "refused", "none": "none is asked for", "unchecked": unchecked}
    lines.append(f"key       {keys[found['key']]}")
    if found["models"] is not None:
        lines.append(f"models    {found['models']} listed")
    if found["answered_ms"] is not None:
        lines.append(f"answer    {found['answered_ms']} ms, by {found['model']}")
    for name, value in (found["probed"] or {}).items():
        shown = {True: "yes", False: "no", None: "unclear"}.get(value, value)
        if name == "prefill" and value is not None:
            shown += f": an answer that is begun is {_BEGUN[found['begun']]}"
        differs = f"  (declared: {_word(found['differs'][name][0])})" if name in found["differs"] else ""
        lines.append(f"{name:<13} {shown}{differs}")
    return lines


def _cost(vendor: Vendor, model: str, probing: Probing) -> str:
    """What probing comes to at most, in words.

    Raises:
        CliError: it could be more than is allowed, or nobody knows.
    """
    price = Catalogue({vendor.name: vendor}).price(vendor.name, model)
    # One request goes before, whose answer is timed.
    requests, given, made = MOST.requests + 1, MOST.input + INPUT, MOST.output + SHORT
    told = f"Probing asks {vendor.name}/{model} {requests} times at most, {given:,} tokens in and {made:,} out: "
    if price is None:
        if probing.limited:
            raise CliError(f"nobody says what {vendor.name}/{model} costs", "leave --max-cost out")
        return told + "at a price that is not known."
    most = price.dearest * given + price.output * made + price.per_request * requests
    if most > probing.most:
        raise CliError(f"probing could cost {shown(most)}, more than {shown(probing.most)}", "allow it with --max-cost")
    return f"{told}{shown(most)} at most."


def _look(
    vendor: Vendor, config: Config, client: VendorClient, found: dict[str, Any], *, probing: Probing | None
) -> None:
    listing = vendor.preset.listing if vendor.preset else "key"
    names = listed(vendor, client) if listing != "none" else None
    if names is not None:
        found["models"] = len(names)
        if found["key"] == "unchecked" and listing == "key":
            found["key"] = "accepted"
    proven = found["key"] != "unchecked" and names is not None
    if proven and not probing and found["model"] is None:
        return
    found["model"] = found["model"] or _choice(vendor, config, names or [])
    if found["model"] is None:
        if probing or names is None:
            raise CliError("it is not known which model to ask", "name one with --model")
        return
    target = Target(vendor, found["model"], client)
    if probing:
        probing.tell(_cost(vendor, found["model"], probing))
    _, answer = target.answer()
    found["answered_ms"] = round(answer.seconds * 1000)
    found["key"] = "accepted" if found["key"] == "unchecked" else found["key"]
    if probing:
        found["probed"], found["begun"] = probe(target)
        declared = asdict(target.declared)
        found["differs"] = {
            name: [declared[name], value]
            for name, value in found["probed"].items()
            if value is not None and value != declared[name]
        }


def _choice(vendor: Vendor, config: Config, names: list[str]) -> str | None:
    """The model to ask: one that a route uses, else the cheapest listed chat model, else the only one there is."""
    for route in config.routes.values():
        for target in route.targets:
            provider, _, model = target.model.partition("/")
            if provider == vendor.name:
                return model
    known = Catalogue({vendor.name: vendor})
    priced = [(price.input + price.output, name) for name in names if (price := known.price(vendor.name, name))]
    paid = [(total, name) for total, name in priced if (price := known.price(vendor.name, name)) and price.output]
    if paid:
        return min(paid)[1]
    return names[0] if len(names) == 1 or (names and priced) else None


def _refusal(vendor: Vendor, error: Refused, found: dict[str, Any]) -> tuple[str, str]:
    name = vendor.name
    if error.status in (401, 403):
        if vendor.key is None:
            return f"{name} asks for a key", f"give it with `lumen provider add {name}`"
        found["key"] = "refused"
        return f"{name} refuses the key ({error.status})", f"give another with `lumen provider add {name}`"
    if error.status == 404 and found["model"]:
        return f"{name} has no model {found['model']!r}, or its base_url is wrong", "name another with --model"
    if error.status == 429:
        return f"{name} is over its rate limit: {error.message}", "try again later"
    where = "" if error.status == 200 else f" ({error.status})"
    return f"{name} does not answer as it should{where}: {error.message}", "check its base_url and dialect"


def _word(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value))
