"""`lumen models set` and `rm`: how a local model is served, from the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields

import pytest
from lumen_cli import model_set

from lumen.config.load import load
from lumen.config.schema import Model
from lumen.paths import Paths
from tests.cli.harness import Fake, Ran

CONFIG = """\
models:
  small: {source: small.gguf}  # the small one
  large:
    source: large.gguf
    slots: 2  # enough
"""


def test_settings_are_set_changed_and_taken_back(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    ran = lumen("models", "set", "large", "--context", "8192", "--slots", "4", "--min-replicas", "0", "--max-replicas",
                "3", "--keep-alive", "5m", "--idle-after", "1h", "--reserve", "--prewarm", "--kv-type", "q8_0",
                "--adapter", "sql=sql.gguf", "--adapter", "law=law.gguf", "--option", "shelf_mb=64")  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.out.startswith(f"Model large is written to {home.config_file}: ")
    model = load(home.config_file).models["large"]
    assert (model.context, model.slots, model.min_replicas, model.max_replicas) == (8192, 4, 0, 3)
    assert (model.keep_alive, model.idle_after, model.reserve, model.prewarm) == (300.0, 3600.0, True, True)
    assert (model.kv_type, model.adapters, model.options) == (
        "q8_0", {"sql": "sql.gguf", "law": "law.gguf"}, {"shelf_mb": 64}
    )  # fmt: skip
    assert "# enough" in home.config_file.read_text() and "# the small one" in home.config_file.read_text()
    assert lumen("models", "set", "large", "--slots", "none", "--keep-alive", "none", "--threads", "none",
                 "--no-reserve", "--adapter", "sql=", "--option", "shelf_mb=").code == 0  # fmt: skip
    model = load(home.config_file).models["large"]
    assert (model.slots, model.keep_alive, model.reserve, model.context) == (None, None, False, 8192)
    assert (model.adapters, model.options) == ({"law": "law.gguf"}, {})


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["large"], 2, "nothing to set"),
        (["lagre", "--slots", "2"], 1, "the configuration has no model 'lagre'; did you mean 'large'?"),
        (["large", "--slots", "many"], 2, "--slots many: expected a whole number; or write none to lift it"),
        (["large", "--slots", "0"], 1, "models.large.slots"),
        (["large", "--keep-alive", "soon"], 1, "models.large.keep_alive: expected a duration"),
        (["large", "--kv-type", "q9"], 1, "models.large.kv_type"),
        (["large", "--pinned", "--idle-after", "1h"], 1, "models.large is pinned: it cannot go when idle as well"),
        (["large", "--adapter", "sql"], 2, "is not NAME=VALUE"),
    ],
)
def test_what_is_wrong_is_not_written(
    lumen: Callable[..., Ran], home: Paths, args: list[str], code: int, said: str
) -> None:
    home.config_file.write_text(CONFIG)
    ran = lumen("models", "set", *args)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert said in ran.err
    assert home.config_file.read_text() == CONFIG


def test_a_model_is_taken_out_and_a_running_gateway_told(lumen: Callable[..., Ran], fake: Fake, home: Paths) -> None:
    home.config_file.write_text(CONFIG)
    fake.start(statuses=[{"config": str(home.config_file)}])
    assert lumen("models", "rm", "large").out == f"Model large is removed from {home.config_file}: in force now.\n"
    assert list(load(home.config_file).models) == ["small"]
    assert len(fake.calls("/admin/reload")) == 1
    assert "has no model 'large'" in lumen("models", "rm", "large").err


def test_a_model_that_a_route_needs_stays(lumen: Callable[..., Ran], home: Paths) -> None:
    home.config_file.write_text(CONFIG + "routes: {r: {targets: [large]}}\n")
    ran = lumen("models", "rm", "large")
    assert (ran.code, "the target 'large' is no local model" in ran.err) == (1, True)
    assert "large" in load(home.config_file).models


def test_what_of_a_model_is_set_elsewhere_or_in_the_file() -> None:
    """Its cards with `lumen gpu assign`; what it is (engine, embeddings) and costs is said once, in the file."""
    flags = set(inspect.signature(model_set.set_).parameters)
    named = {"adapters": "adapter", "options": "option"}
    missing = {field.name for field in fields(Model) if named.get(field.name, field.name) not in flags}
    assert missing == {"engine", "gpus", "embedding", "pooling", "price"}
