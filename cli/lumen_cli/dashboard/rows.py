"""Frames as rows of tables: a key and the cells of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lumen_cli import trials as tried
from lumen_cli.dashboard.alarms import NOTICED, SLOW, slowness
from lumen_cli.dashboard.words import age, bar, clock, dollars, grade, ms, short_ms, state, toned
from lumen_cli.output import size

Row = tuple[str, tuple[str, ...]]


def routes(found: Mapping[str, Any]) -> list[Row]:
    return [
        (
            name,
            (
                name,
                f"{route['rps']:.1f}",
                f"{route['tps']:.0f}",
                *(ms(route["ttft_ms"].get(share)) for share in ("p50", "p95", "p99")),
                grade(f"{route['errors']:.1%}", route["errors"], 0.01, 0.05),
                dollars(route["cost"] / 1e6),
            ),
        )
        for name, route in sorted(found.items(), key=lambda pair: (-pair[1]["rps"], pair[0]))
    ]


def targets(found: Sequence[Mapping[str, Any]], at: float) -> list[Row]:
    """`at`: when the frame was made."""
    return [(one["name"], _target(one, at)) for one in found]


def _target(one: Mapping[str, Any], at: float) -> tuple[str, ...]:
    history = one.get("first_token_ms") or {}
    now, times = one.get("usual_first_token_ms"), slowness(one) or 0.0
    noticed = times if now is not None and now >= NOTICED else 0.0
    mark = f" ▲{times:.2g}×" if noticed >= 1.5 else ""
    return (
        one["name"],
        state(one["state"]),
        age(at - one["since"]) if one.get("since") else "-",
        f"{one['in_flight']}, {one['share']:.0%}",
        grade(f"{one['error_rate']:.0%}", one["error_rate"], 0.05, 0.2),
        grade(ms(now) + mark, noticed, 1.5, SLOW),
        f"{short_ms(history.get('p50'))}/{ms(history.get('p95'))}" if history else "-",
        one.get("why") or "-",
    )


def failovers(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [
        (
            f"{one['request_id']} {one['time']}",
            (
                clock(one["time"]),
                one["source"],
                one["to"],
                toned(one["rung"], "faint" if one["rung"] == "fresh" else "live"),
                str(one["position"]),
                "-" if one["seam_ms"] is None else grade(f"{one['seam_ms']:.0f} ms", one["seam_ms"], 1_000, 10_000),
                one["client"],
                one["why"],
                one["request_id"],
            ),
        )
        for one in found
    ]


def requests(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [
        (
            one["id"],
            (
                one["route"],
                one.get("target") or "-",
                state(one["outcome"], "".join(f" ⤳{rung}" for rung in one.get("splices") or ()), "bad"),
                tokens(one),
                ms(one.get("ttft_ms")),
                ms(one["ms"]),
                f"${one['cost'] / 1e12:.6f}" if "cost" in one else "-",
                score(one),
                str(one["attempts"]),
                parts(one.get("parts_ms") or {}),
                one.get("key") or "-",
                one.get("reason") or "-",
                one["id"],
            ),
        )
        for one in found
    ]


def score(one: Mapping[str, Any]) -> str:
    """How likely the answer of the chosen target was good enough, and behind a stroke what that had to reach."""
    if one.get("score") is None:
        return "-"
    return f"{one['score']:.1%}" + ("" if one.get("bar") is None else f"/{one['bar']:.1%}")


def parts(found: Mapping[str, float]) -> str:
    """What of the time to the first token is worth a word."""
    return " + ".join(f"{name} {value:.0f}" for name, value in found.items() if value >= 1.0) or "-"


def models(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    """One row a model: who is resident, asleep, off."""
    rows: list[Row] = []
    for model in found:
        standing, replicas = model.get("standing") or {}, model.get("replicas") or ()
        residency = standing.get("residency") or ("resident" if model.get("ready") else "off")
        doing = model.get("missing") or next((text for one in replicas if (text := _doing(one)) != "-"), "-")
        serving = sum(one["state"] == "ready" for one in replicas)
        memory = ", ".join(f"{device} {size(held)}" for device, held in (standing.get("holds") or {}).items() if held)
        wakes = (standing.get("wakes") or {}).get("asleep" if residency == "asleep" else "off")
        cells = (
            model["name"],
            state(residency, f" ×{serving}" if serving > 1 else "", "bad"),
            toned(doing, "bad") if model.get("missing") else doing,
            memory or "-",
            str(sum(one["in_flight"] for one in replicas)),
            str(standing.get("waiting", 0)),
            "-" if wakes is None else f"{wakes:.1f} s",
        )
        rows.append((model["name"], cells))
    return rows


def replicas(found: Iterable[Mapping[str, Any]], at: float) -> list[Row]:
    """One row a replica, with what it is doing; one for a model without."""
    rows: list[Row] = []
    for model in found:
        if not model.get("replicas"):
            residency = (model.get("standing") or {}).get("residency") or "off"
            missing = toned(model.get("missing") or "-", "bad" if model.get("missing") else "")
            rows.append((f"{model['name']} -", (model["name"], "-", state(residency), "-", missing, "-", "-", "-")))
        for one in model.get("replicas") or ():
            cells = (
                one["model"],
                str(one["index"]),
                state(one["state"]),
                age(at - one["since"]) if one.get("since") else "-",
                _doing(one),
                str(one["in_flight"]),
                grade(str(one["restarts"]), one["restarts"], 1, 3),
                "-" if one["pid"] is None else str(one["pid"]),
            )
            rows.append((f"{one['model']} {one['index']}", cells))
    return rows


def _doing(one: Mapping[str, Any]) -> str:
    """What went wrong, else the phase of its start with how far it is."""
    if one.get("why"):
        return toned(one["why"], "bad" if one["state"] == "crashed" else "warn")
    if not one.get("phase") or one["state"] not in ("starting", "probing", "waking"):
        return "-"
    if one.get("pct") is None:
        return str(one["phase"])
    return f"{one['phase']} {bar(one['pct'] / 100)} {one['pct']:.0f} %"


def devices(found: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The memories of the machine; cards have been full by design, so only the machine's own is cause for alarm."""
    rows: list[Row] = []
    for one in found:
        share = one["used"] / one["total"] if one["total"] else 0.0
        full = f"{bar(share)} {share:4.0%}"
        cells = (
            one["id"],
            grade(full, share, 0.9, 0.97) if one["kind"] == "ram" else full,
            size(one["used"]),
            size(one["total"]),
            size(one["charged"]),
            "-" if one["busy"] is None else f"{bar(one['busy'] / 100)} {one['busy']:3d} %",
            "-" if one["celsius"] is None else grade(f"{one['celsius']} °C", one["celsius"], 85, 95),
            one["name"],
        )
        rows.append((one["id"], cells))
    return rows


def trials(found: Mapping[str, Any], at: float) -> list[Row]:
    """Canaries, then shadows; the key is kind and route."""
    rows: list[Row] = []
    for one in found.get("canaries", ()):
        route, candidate, phase, share, answers, evidence, _ = tried.canary_row(one)
        word, why = one["phase"], one["why"] or one["reason"]
        told = state(word, phase.removeprefix(word) + (f" ({why})" if why else ""))
        seen, since = f"{answers} answers", age(at - one["started"])
        rows.append((f"canary {route}", ("canary", route, candidate, told, share, seen, evidence or "-", since)))
    for one in found.get("shadows", ()):
        route, candidate, share, pairs, spent, _, running, judge = tried.shadow_row(one)
        word = running.partition(" ")[0]
        told, since = state(word, running.removeprefix(word)), age(at - one["started"])
        rows.append(
            (f"shadow {route}", ("shadow", route, candidate, told, share, f"{pairs} pairs, {spent}", judge, since))
        )
    return rows


def budgets(money: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for one in money.get("budgets", ()):
        name = f"{one['scope']} {one['name']}".strip()
        share = (one["spent"] + one["held"]) / one["cap"] if one["cap"] else 1.0
        spent = grade(f"{bar(share)} {share:4.0%} {dollars(one['spent'])}", share, 0.9, 1.0)
        rows.append((f"{name} {one['limit']}", (name, one["limit"], spent, dollars(one["cap"]), dollars(one["held"]))))
    return rows


def tokens(one: Mapping[str, Any]) -> str:
    if "tokens" in one:
        return f"{one['tokens']} so far"
    if one.get("prompt_tokens") is None:
        return "-"
    return f"{one['prompt_tokens']}+{one['completion_tokens']}"
