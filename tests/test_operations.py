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

FOLDER = Path(__file__).parents[1] / "docs" / "operations"
_NAME = re.compile(r"\b(?:lumen|gen_ai)_[a-z_]+")
_LABEL = re.compile(r"gen_ai_(?:request_model|response_model|operation_name|token_type)$")


class _Anything:
    """Stands in for a running gateway: whatever is read of it is a number."""

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __float__(self) -> float:
        return 1.0


def expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr":
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def known() -> set[str]:
    metrics = Metrics()
    record = Record("t", "r", 1.0, rung="prefill", first_token=1.1, outcome="ok", usage=Usage(3, 4, 7))
    metrics.add(Settled("id", "chat", "r", None, 1.0, 1.0, 2.0, "ok", True, [record], 5))
    state: Any = _Anything()
    read = gauges(state, Served(Config()), [], [{"name": "t", "state": "open", "in_flight": 1}])
    text = exposition(Snapshot(metrics, Gauges(read))).decode()
    families = list(text_string_to_metric_families(text))
    # A gauge that has no labels to stand under right now has no sample, only its name.
    return {family.name for family in families} | {s.name for family in families for s in family.samples}


def test_every_metric_in_the_dashboard_and_the_alerts_exists() -> None:
    told = [json.loads((FOLDER / "grafana.json").read_text()), yaml.safe_load((FOLDER / "alerts.yaml").read_text())]
    found = {name for text in expressions(told) for name in _NAME.findall(text) if not _LABEL.fullmatch(name)}
    assert len(found) > 10
    assert found <= known()


def test_panels_have_their_own_places() -> None:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
