from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import lumen.config
from lumen.config import nodes
from lumen.config.checks import BUILTIN_MODEL, check, known
from lumen.config.load import load, parse
from lumen.config.reading import hints
from lumen.config.remotes import is_loopback
from lumen.config.schema import Acme, Auth, Config, Model, Provider, Route, Server, Target, Timeouts
from lumen.core.errors import ConfigError

EXAMPLE = Path(lumen.config.__file__).parent / "example.yaml"

REMOTE = "providers:\n  acme:\n    base_url: https://api.example.com/v1\n"


def test_an_empty_file_is_the_defaults() -> None:
    for text in ("", "# nothing\n", "---\n", "{}", "models:\nroutes:\n"):
        assert parse(text, "c.yaml") == Config()
    assert load(None) == Config()


def test_a_whole_file() -> None:
    config = parse(
        "server: {port: 6000, max_body: 1MiB, drain: 0}\n"
        "models:\n  small:\n    source: builtin:tiny\n    slots: 2\n    options: {a: [1, {b: x}]}\n"
        "providers:\n  acme:\n    base_url: https://api.example.com/v1\n    key: env:ACME_KEY\n"
        "    headers: {X-Team: blue}\n"
        "routes:\n  fast:\n    targets: [small, {model: acme/big, weight: 3}]\n"
        "    defaults: {temperature: 1, stop: [a, b]}\n    timeouts: {first_token: 300ms}\n"
        "timeouts:\n  total: 10m\n"
        "profile: cpu\n",
        "c.yaml",
    )
    assert config.server == Server(port=6000, max_body=2**20, drain=0.0)
    assert config.models == {"small": Model("builtin:tiny", slots=2, options={"a": [1, {"b": "x"}]})}
    assert config.providers["acme"] == Provider(
        "https://api.example.com/v1", key="env:ACME_KEY", headers={"X-Team": "blue"}
    )
    assert config.routes["fast"] == Route(
        (Target("small"), Target("acme/big", 3.0)),
        defaults={"temperature": 1, "stop": ["a", "b"]},
        timeouts=Timeouts(first_token=0.3),
    )
    assert config.timeouts == Timeouts(
        total=600.0, queue=30.0, connect=5.0, headers=60.0, first_token=60.0, gap=30.0, min_rate=0.05
    )


# (text, line, part of the message)
WRONG: list[tuple[str, int, str]] = [
    ("server:\n  prot: 1\n", 2, "unknown key 'prot'; did you mean 'port'?"),
    ("server:\n  host: 127.0.0.1\n\n  # why\n  xyzzy: 1\n", 5, "known here: body_timeout"),
    ("sever: {}\n", 1, "did you mean 'server'?"),
    ("server: 3\n", 1, "server: expected keys with values, got a whole number"),
    ("- a\n", 1, "a configuration: expected keys with values, got a list"),
    ("server:\n  port: '80'\n", 2, "server.port: expected a whole number, got text"),
    ("server:\n  port: true\n", 2, "server.port: expected a whole number, got true or false"),
    ("server:\n  port: 70000\n", 2, "server.port: expected a number from 0 to 65535"),
    ("server:\n  port: " + "9" * 5000 + "\n", 2, "server.port: this is not a number"),
    ("server:\n  header_timeout: " + "9" * 4000 + "\n", 2, "server.header_timeout: a duration"),
    ("server:\n  host: 5\n", 2, "server.host: expected text, got a whole number; put it in quotes"),
    ("server:\n  host: 'a b'\n", 2, "server.host: expected an address"),
    ("server:\n  max_body: lots\n", 2, "server.max_body: expected a size such as 32MiB"),
    ("server:\n  max_body: 1.5\n", 2, "server.max_body: a size is a whole number of bytes"),
    ("server:\n  max_body: [1]\n", 2, "server.max_body: expected a size such as 32MiB, got a list"),
    ("server:\n  body_timeout: 0\n", 2, "zero would fail every request"),
    ("timeouts:\n  gap: soon\n", 2, "timeouts.gap: expected a duration"),
    ("timeouts:\n  gap: -1s\n", 2, "timeouts.gap: expected a duration"),
    ("timeouts:\n  gap: .nan\n", 2, "timeouts.gap: a duration is not negative"),
    ("logging:\n  level: warn\n", 2, "expected one of debug, info, warning, error; did you mean 'warning'?"),
    ("server:\n  port: 1\n  port: 2\n", 3, "'port' stands twice, first in line 2"),
    ("routes:\n  a: {targets: [lumen-tiny]}\n  a: {targets: [lumen-tiny]}\n", 3, "'a' stands twice, first in line 2"),
    ("? [a]\n: 1\n", 1, "a key must be text"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    policy: fastst\n", 4, "did you mean 'fastest'?"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    policy: ../x.py\n", 4, "a Python file beside this one"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    strong: lumen-tny\n", 4, "did you mean 'lumen-tiny'?"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    max_loss: 1.5\n", 4, "expected a share such as 1% or 0.01"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    max_loss: 60%\n", 4, "at most 50%"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    confidence: 100%\n", 4, "below 100%"),
    (
        "routes:\n  a:\n    targets: [lumen-tiny]\n    rules:\n      - when: tuns > 3\n        target: lumen-tiny\n",
        5,
        "routes.a.rules[0].when, column 1: there is no field 'tuns'",
    ),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    rules:\n      - {when: json, target: b}\n", 5, "'b' is no target"),
    ("models:\n  a:\n    engine: llamacpp\n", 2, "models.a needs 'source'"),
    ("models:\n  a: {source: x.gguf, replicas: 0}\n", 2, "models.a.replicas: expected a number from 1"),
    ("models:\n  a: {source: x.gguf, engine: lamacpp}\n", 2, "there is no engine 'lamacpp'"),
    ("models:\n  a: {source: ''}\n", 2, "models.a.source: expected builtin:tiny"),
    ("models:\n  ../evil: {source: x.gguf}\n", 2, "'../evil' cannot name a model"),
    ("models:\n  a/b: {source: x.gguf}\n", 2, "'a/b' cannot name a model"),
    ("models:\n  a..b: {source: x.gguf}\n", 2, "'a..b' cannot name a model"),
    ("models:\n  .hid: {source: x.gguf}\n", 2, "cannot name a model"),
    ('models:\n  "a\\0b": {source: x.gguf}\n', 2, "cannot name a model"),
    ("providers:\n  o:\n    base_url: https://x.example/v1\n    dialect: opnai\n", 4, "did you mean 'openai'?"),
    ("providers:\n  o:\n    base_url: ftp://x.example\n", 3, "expected an address such as https://"),
    ("providers:\n  o:\n    base_url: https://x:99999/v1\n", 3, "expected an address such as https://"),
    ("providers:\n  o:\n    base_url: https://me:pw@x.example/v1\n", 3, "no user name or password"),
    ("providers:\n  o:\n    base_url: https://x.example/v1?key=1\n", 3, "an address ends before ? and #"),
    (REMOTE + "    key: sk-verysecret\n", 4, "must be `env:NAME`"),
    (REMOTE + "    key: 'env:'\n", 4, "must be `env:NAME`"),
    (REMOTE + "    headers:\n      Authorization: Bearer verysecret\n", 5, "write `key: env:NAME` instead"),
    (REMOTE + '    headers:\n      X-A: "a\\r\\nb: c"\n', 5, "not a header that can be sent"),
    ("hub:\n  token: hf_verysecret\n", 2, "hub.token must be `env:NAME`"),
    ("hub:\n  endpoint: nowhere\n", 2, "hub.endpoint: expected an address"),
    ("models:\n  o: {source: a.gguf}\nproviders:\n  o: {base_url: 'http://x/'}\n", 4, "names a local model too"),
    ("routes:\n  a: {}\n", 2, "routes.a needs 'targets'"),
    ("routes:\n  a:\n    targets: []\n", 3, "needs at least one target"),
    ("routes:\n  a:\n    targets: lumen-tiny\n", 3, "routes.a.targets: expected a list, got text"),
    ("routes:\n  a:\n    targets:\n      - lumen-tiny\n      - lumen-tny\n", 5, "did you mean 'lumen-tiny'?"),
    ("routes:\n  a:\n    targets: [acne/x]\n" + REMOTE, 3, "did you mean 'acme'?"),
    ("routes:\n  a:\n    targets: [acme/]\n" + REMOTE, 3, "names no model"),
    ("routes:\n  b: {targets: [lumen-tiny]}\n  a:\n    targets: [b]\n", 4, "'b' is a route"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    policy: wieghted\n", 4, "no policy 'wieghted'; did you mean"),
    ("routes:\n  a:\n    targets:\n    - {model: lumen-tiny, weight: -1}\n", 4, "must not be negative"),
    ("routes:\n  a:\n    targets:\n    - {model: lumen-tiny, weight: .inf}\n", 4, "must not be negative"),
    ("routes:\n  a:\n    targets:\n    - {model: lumen-tiny, weight: 0}\n", 3, "every weight of route 'a' is 0"),
    ("routes:\n  a:\n    targets: [lumen-tiny, lumen-tiny]\n", 3, "names a target twice"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    defaults:\n      temprature: 1\n", 5, "did you mean 'temp"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    defaults:\n      temperature: 3\n", 5, "between 0 and 2"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    defaults:\n      seed: true\n", 5, "seed: expected a whole number"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    defaults:\n      stop: [1]\n", 5, "stop: expected text or a list"),
    ("routes:\n  a:\n    targets: [lumen-tiny]\n    defaults:\n      model: x\n", 5, "not a parameter that"),
    ("routes:\n  a/../b:\n    targets: [lumen-tiny]\n", 2, "cannot name a route"),
    ("auth:\n  required: false\nserver:\n  host: 0.0.0.0\n", 2, "only on a loopback address, not on 0.0.0.0"),
    ("auth:\n  required: maybe\n", 2, "auth.required: expected true or false, got text"),
    ("a: &x 1\nb: *x\n", 2, "aliases"),
    ("server: !!python/object:os.system {}\n", 1, "tags (tag:yaml.org,2002:python/object:os.system)"),
    ("server: {\n", 2, "but found '<stream end>'"),
    ("server:\n\tport: 1\n", 2, "indent with spaces"),
    ("server:\n  port: 1: 2\n", 2, "a ':' stands where none may"),
    ("a: 1\n---\nb: 2\n", 2, "a second document begins here"),
    ("server:\n  port: 1\n" + "a: " + "[" * 100 + "\n", 3, "nested deeper than 24 levels"),
    ("a:\n" + "  - 1\n" * 60_000, 49_998, "too many entries"),
    (
        "models:\n  m: {source: x.gguf, min_replicas: 3, max_replicas: 2}\n",
        2,
        "models.m.min_replicas is more than max_replicas",
    ),
    ("models:\n  m: {source: x.gguf, min_replicas: 2}\n", 2, "models.m.min_replicas is more than replicas"),
    ("models:\n  m: {source: x, replicas: 3, max_replicas: 2}\n", 2, "max_replicas is less than replicas"),
    ("models:\n  m: {source: x, keep_alive: 2m, idle_after: 1m}\n", 2, "idle_after is shorter than keep_alive"),
    ("models:\n  m: {source: x, adapters: {'a:b': y.gguf}}\n", 2, "'a:b' cannot name an adapter"),
    ("models:\n  m: {source: x, adapters: {a: ' '}}\n", 2, "models.m.adapters.a: expected a path"),
    ("models:\n  m: {source: x, embedding: true, adapters: {a: y}}\n", 2, "embeddings, which take no adapters"),
    ("models:\n  m: {source: x, adapters: {a: y}}\n  'm:a': {source: z}\n", 2, "'m:a' names a model"),
    (
        "models:\n  m: {source: x, adapters: {sql: y}}\nroutes:\n  r: {targets: ['m:sqll']}\n",
        4,
        "did you mean 'm:sql'?",
    ),
    ("models:\n  m: {source: x, pinned: true, idle_after: 1m}\n", 2, "pinned: it cannot go when idle"),
    ("models:\n  m: {source: x, pinned: true, min_replicas: 0}\n", 2, "pinned: it cannot go when idle"),
    ("models:\n  m: {source: x, gpus: [0, 0]}\n", 2, "numbers of cards, each once"),
    ("models:\n  m: {source: x}\nroutes:\n  r: {targets: [m], cover: true}\n", 4, "no second target"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "said"), WRONG, ids=[w[2][:40] for w in WRONG])
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.yaml")
    assert caught.value.where == f"c.yaml:{line}"
    assert str(caught.value).startswith(f"c.yaml:{line}: ")
    assert said in caught.value.message
    assert "verysecret" not in caught.value.message


def test_a_file_that_is_too_large_or_too_deep_costs_little() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        parse("#" * (nodes.MAX_TEXT + 1), "c.yaml")
    with pytest.raises(ConfigError, match="nested deeper"):
        parse("[" * 100_000, "c.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file") as caught:
        load(tmp_path / "none.yaml")
    assert caught.value.where == str(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"server:\n  host: \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "nul.yaml").write_bytes(b"server: \0\n")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load(tmp_path / "nul.yaml")


@settings(deadline=None)
@given(st.text(st.sampled_from("abms:{}[]-,#'\"&*!|>%@` \n\t01.~?"), max_size=60))
def test_any_text_is_read_or_refused_as_a_configuration(text: str) -> None:
    try:
        parse(text, "c.yaml")
    except ConfigError as error:
        assert error.where is not None


def test_keys_are_off_only_on_loopback() -> None:
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"):
        assert is_loopback(host)
        check(Config(server=Server(host=host), auth=Auth(required=False)))
    for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com"):
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="loopback"):
            check(Config(server=Server(host=host), auth=Auth(required=False)))


def test_names_of_plugins_are_those_of_their_files() -> None:
    assert {"weighted", "ordered"} <= known("routing")
    assert "openai" in known("providers")
    for kind in ("routing", "providers", "engines"):
        assert not known(kind) & {"base", "__init__"}
    assert Route(()).policy in known("routing")
    assert Model("").engine in known("engines")


def test_the_built_in_model_may_be_a_target_without_being_declared() -> None:
    config = parse(f"routes:\n  best:\n    targets: [{BUILTIN_MODEL}]\n", "c.yaml")
    assert config.routes["best"].targets == (Target(BUILTIN_MODEL),)


def _keys_of(data: Any, hint: Any, path: str = "") -> set[str]:
    """Every key that `data` gives, with the names that the user chose replaced by `*`."""
    args = get_args(hint)
    if data is None or hint is None:
        return set()
    if is_dataclass(hint) and isinstance(data, dict):
        found = set()
        for key, value in data.items():
            found |= {f"{path}.{key}"} | _keys_of(value, hints(hint)[key], f"{path}.{key}")  # type: ignore[arg-type]
        return found
    if get_origin(hint) is tuple and isinstance(data, list):
        return set().union(*(_keys_of(item, args[0], path) for item in data))
    if isinstance(data, dict) and len(args) == 2 and is_dataclass(args[1]):
        return set().union(*(_keys_of(value, args[1], f"{path}.*") for value in data.values()))
    return set()


def _keys_known(hint: Any, path: str = "") -> set[str]:
    args = get_args(hint)
    if is_dataclass(hint):
        return set().union(
            *({f"{path}.{f.name}"} | _keys_known(hints(hint)[f.name], f"{path}.{f.name}") for f in fields(hint))  # type: ignore[arg-type]
        )
    if get_origin(hint) is tuple:
        return _keys_known(args[0], path)
    return _keys_known(args[1], f"{path}.*") if len(args) == 2 and is_dataclass(args[1]) else set()


def test_the_example_has_every_key_and_loads() -> None:
    text = EXAMPLE.read_text("utf-8")
    parse(text, "example.yaml")
    given_keys = _keys_of(yaml.safe_load(text), Config)
    # What a route or a remote model may say of its own is listed in full once, in the section it overrides.
    again = (".routes.*.timeouts.", ".providers.*.models.*.capabilities.")
    assert not {key for key in _keys_known(Config) - given_keys if not key.startswith(again)}
    assert {".server.port", ".models.*.kv_type", ".routes.*.targets.weight", ".timeouts.gap"} <= given_keys


def test_every_key_of_the_example_has_a_comment() -> None:
    lines = EXAMPLE.read_text("utf-8").splitlines()
    explained = [f"{line}" for i, line in enumerate(lines) if "#" in line or lines[i - 1].lstrip().startswith("#")]
    for field in fields(Config):
        assert any(line.startswith(f"{field.name}:") for line in explained), field.name
    for section in (Server, Auth, Model, Provider, Route, Timeouts):
        for field in fields(section):
            if field.name not in ("base_url",):
                assert any(line.strip().startswith(f"{field.name}:") and "#" in line for line in lines), field.name


def test_what_the_example_calls_a_default_is_one() -> None:
    config = parse(EXAMPLE.read_text("utf-8"), "example.yaml")
    # There is no issuer by default, and no authority; the example shows both with all their keys.
    auth = replace(config.auth, oidc=None)
    assert config.server.tls.acme is not None and config.server.tls.acme == replace(
        Acme(("lumen.example.com",)), email="you@example.com"
    )
    server = replace(config.server, tls=replace(config.server.tls, acme=None))
    assert (server, auth, config.timeouts, config.logging) == (
        Config().server, Config().auth, Config().timeouts, Config().logging,
    )  # fmt: skip
