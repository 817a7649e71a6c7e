"""The files for operators name metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from lumen.config.schema import Config
from lumen.gateway.attempt import Record
from lumen.gateway.metrics import Gauges, Metrics, Snapshot, exposition
from lumen.gateway.overview import Served, gauges
from lumen.gateway.settled import Settled
from lumen.wire.answers import Usage
from lumen.workers.supervisor import ReplicaState

FOLDER = Path(__file__).parents[1] / "docs" / "operations"
_NAME = re.compile(r"\b(?:lumen|gen_ai)_[a-z_]+")
_LABEL = re.compile(r"gen_ai_(?:request_model|response_model|operation_name|provider_name|token_type)$")
_BY = re.compile(r"\bby \(([^)]*)\)")
_MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


class _Anything:
    """Stands in for a running gateway: whatever is read of it is a number."""

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __float__(self) -> float:
        return 1.0


def told() -> list[Any]:
    return [json.loads((FOLDER / "grafana.json").read_text()), yaml.safe_load((FOLDER / "alerts.yaml").read_text())]


def queries(value: Any) -> Iterator[dict[str, Any]]:
    """Everything with an `expr`: targets of panels, rules of alerts."""
    if isinstance(value, dict):
        if "expr" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from queries(inner)


def named(text: str) -> set[str]:
    return {name for name in _NAME.findall(text) if not _LABEL.fullmatch(name)}


def listed(text: str) -> set[str]:
    return {label.strip() for group in _BY.findall(text) for label in group.split(",")}


def known() -> dict[str, set[str]]:
    """Every metric that there is → its labels."""
    metrics = Metrics()
    record = Record("t", "r", 1.0, rung="prefill", first_token=1.1, outcome="ok", usage=Usage(3, 4, 7))
    record.sent, record.answered = 1.05, 1.07
    metrics.take([Settled("id", "chat", "r", None, 1.0, 1.0, 2.0, "ok", True, [record], 5)])
    state: Any = _Anything()
    replica = ReplicaState("m", 0, "llamacpp", "ready", 0.0, None, 1, None, None, 0, 0)
    target = {"name": "t", "state": "open", "in_flight": 1}
    read = gauges(state, Served(Config(), {"m": "x"}), [replica], {}, [target])
    text = exposition(Snapshot(metrics, Gauges(read))).decode()
    families = list(text_string_to_metric_families(text))
    # Every family has a sample here, so what a sample has no label of has none.
    assert not [family.name for family in families if not family.samples]
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_every_metric_in_the_dashboard_and_the_alerts_exists() -> None:
    found = {name for one in queries(told()) for name in named(one["expr"])}
    assert len(found) > 10
    assert found <= set(known())


def test_every_label_that_they_ask_for_is_one_of_the_metric() -> None:
    labels = known()
    for one in queries(told()):
        here = set.union(*(labels[name] for name in named(one["expr"])))
        assert listed(one["expr"]) | set(_MATCHED.findall(one["expr"])) <= here, one["expr"]
        # What is shown of a sum is what it was summed by.
        left = listed(one["expr"]) or (set() if "sum" in one["expr"] else here)
        texts = [one.get("legendFormat", ""), *one.get("annotations", {}).values()]
        assert {label for text in texts for label in _SHOWN.findall(text)} <= left, one["expr"]


def test_panels_have_their_own_places() -> None:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
