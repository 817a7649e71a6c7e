"""Keys: added, changed, listed and revoked."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import fields

import pytest
from lumen_cli.commands import key as key_command

from lumen.core.errors import ConfigError
from lumen.keys import Key, Limits, load
from lumen.paths import Paths
from tests.cli.harness import MODEL, Fake, Ran


def test_a_key_is_shown_once_and_works(lumen: Callable[..., Ran], home: Paths) -> None:
    ran = lumen("key", "add", "app", "--models", "qwen*", "--models", "llama*", "--routes", "fast", "--expires", "30d")
    assert ran.code == 0
    secret = ran.out.strip()
    assert secret.startswith("lumen-")
    assert "takes effect with the next `lumen up`" in ran.err
    key = load(home.keys_file).find(secret, time.time())
    assert key is not None
    assert (key.name, key.models, key.routes) == ("app", ("qwen*", "llama*"), ("fast",))
    assert key.expires is not None
    assert abs(key.expires - key.created - 30 * 86400) < 1
    listed = lumen("key", "ls")
    assert secret not in listed.out + lumen("key", "ls", "--json").out
    assert key.hash not in listed.out + lumen("key", "ls", "--json").out
    assert "qwen*, llama*" in listed.out
    told = lumen("key", "ls", "--json").json[0]
    assert (told["id"], told["name"], told["state"]) == (key.id, "app", "active")


def test_a_key_as_json(lumen: Callable[..., Ran], home: Paths) -> None:
    made = lumen("key", "add", "app", "--json").json
    assert load(home.keys_file).find(made["key"], 0.0) is not None


def test_keys_are_revoked_by_name_or_id(lumen: Callable[..., Ran], home: Paths) -> None:
    secret = lumen("key", "add", "app").out.strip()
    assert lumen("key", "add", "app").err.startswith("lumen: a key named 'app' exists")
    assert lumen("key", "revoke", "app").out == "Key 'app' is revoked: takes effect with the next `lumen up`.\n"
    assert load(home.keys_file).find(secret, time.time()) is None
    assert lumen("key", "ls", "--json").json[0]["state"] == "revoked"
    ran = lumen("key", "revoke", "app")
    assert (ran.code, ran.err) == (1, "lumen: key 'app' is revoked already; `lumen key ls` lists the keys\n")


def test_a_key_has_a_turn_of_its_own(lumen: Callable[..., Ran], home: Paths) -> None:
    assert lumen("key", "add", "batch", "--priority", "low", "--rpm", "60").code == 0
    lumen("key", "add", "app")
    assert [key.priority for key in load(home.keys_file).keys] == ["low", None]
    assert [key["priority"] for key in lumen("key", "ls", "--json").json] == ["low", None]
    ran = lumen("key", "set", "batch", "--priority", "high")
    assert "and goes by high priority" in ran.out
    (batch, _) = load(home.keys_file).keys
    assert (batch.priority, batch.limits.rpm) == ("high", 60), "what is not given stays"
    lumen("key", "set", "batch", "--priority", "none")
    assert load(home.keys_file).keys[0].priority is None
    ran = lumen("key", "set", "batch", "--priority", "first")
    assert (ran.code, "write low, normal, high" in ran.err) == (2, True)
    home.keys_file.write_text(home.keys_file.read_text().replace('"priority": null', '"priority": "first"'))
    with pytest.raises(ConfigError, match="not a file of keys"):
        load(home.keys_file)


def test_what_a_key_may_ask_and_for_how_long_is_changed(lumen: Callable[..., Ran], home: Paths) -> None:
    secret = lumen("key", "add", "app", "--routes", "fast", "--rpm", "60").out.strip()
    ran = lumen("key", "set", "app", "--routes", "fast", "--routes", "slow", "--models", "qwen*", "--expires", "30d",
                "--no-retention")  # fmt: skip
    assert ran.code == 0, ran.err
    key = load(home.keys_file).find(secret, time.time())
    assert key is not None and key.expires is not None
    assert (key.routes, key.models, key.retains, key.limits.rpm) == (("fast", "slow"), ("qwen*",), False, 60)
    assert 29 * 86400 < key.expires - time.time() <= 30 * 86400
    assert "is limited to 60 rpm, asks only qwen*, fast, slow, ends " in ran.out
    assert ", nothing of its requests kept: " in ran.out
    assert lumen("key", "set", "app", "--models", "none", "--expires", "none", "--retention").code == 0
    key = load(home.keys_file).find(secret, time.time())
    assert key is not None
    assert (key.routes, key.models, key.retains, key.expires) == (("fast", "slow"), (), True, None)
    assert lumen("key", "set", "app", "--reserve").code == 0
    ran = lumen("key", "set", "app", "--routes", "none")
    assert (ran.code, "may use everything" in ran.err) == (1, True)
    lumen("key", "add", "viewer", "--role", "viewer")
    ran = lumen("key", "set", "viewer", "--models", "m")
    assert (ran.code, ran.err) == (1, "lumen: key 'viewer' has a role and asks no model\n")


def test_all_that_is_kept_of_a_key_is_changed_but_who_it_is() -> None:
    flags = set(inspect.signature(key_command.set_).parameters)
    named = {"retains": "retention"}
    fixed = {field.name for field in fields(Key) if named.get(field.name, field.name) not in flags}
    assert fixed == {"id", "hash", "created", "revoked", "role", "limits"}
    assert set(Limits.__dataclass_fields__) <= flags


def test_a_running_gateway_learns_of_keys(lumen: Callable[..., Ran], fake: Fake) -> None:
    fake.start(statuses=[{"models": [MODEL]}])
    assert "in force now" in lumen("key", "add", "app").err
    assert lumen("key", "revoke", "app").out == "Key 'app' is revoked: in force now.\n"
    assert len(fake.calls("/admin/reload")) == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [(["a", "--expires", "soon"], "--expires: expected a duration"), (["a", "--expires", "0s"], "end at once"),
     ([""], "1 to 64 visible characters"), (["a\nb"], "1 to 64 visible characters"), (["x" * 65], "visible"),
     ([], "see `lumen key add --help`")],
)  # fmt: skip
def test_keys_that_make_no_sense(lumen: Callable[..., Ran], home: Paths, args: list[str], said: str) -> None:
    ran = lumen("key", "add", *args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not home.keys_file.exists()


def test_a_damaged_file_of_keys_is_told(lumen: Callable[..., Ran], home: Paths) -> None:
    home.keys_file.write_text("{")
    for args in (["ls"], ["add", "x"], ["revoke", "x"]):
        ran = lumen("key", *args)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "not a file of keys" in ran.err
    assert home.keys_file.read_text() == "{"
