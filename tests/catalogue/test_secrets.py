"""Keys of providers: where they are kept, what they are bound to, and that nothing shows them."""

from __future__ import annotations

import copy
import json
import pickle
import stat
import sys
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

from lumen import secrets
from lumen.core.errors import ConfigError
from lumen.secrets import KeyMissing, Secret, Vault, read, secret

URL = "https://api.example.com/v1"
KEY = "sk-very-secret-0123456789"


class Backend:
    """A system keyring in memory."""

    priority = 5.0

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, user: str) -> str | None:
        if self.locked:
            raise RuntimeError(f"locked: {self.kept.get((service, user))}")
        return self.kept.get((service, user))

    def set_password(self, service: str, user: str, text: str) -> None:
        if self.locked:
            raise RuntimeError(f"locked: {text}")
        self.kept[service, user] = text

    def delete_password(self, service: str, user: str) -> None:
        del self.kept[service, user]


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "config" / "provider-keys.json")


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend()
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_keyring=lambda: backend))
    return backend


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has: no test may touch its user's keyring."""
    monkeypatch.setitem(sys.modules, "keyring", None)


def test_the_file_keeps_a_key_for_its_user_alone(vault: Vault) -> None:
    vault.keep("acme", URL, Secret(KEY), "file")
    assert vault.find("acme", "https://API.example.com:443/other", "file").reveal() == KEY
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(vault.path.parent.stat().st_mode) == 0o700
    vault.keep("acme", URL, Secret("second-key"), "file")
    assert vault.find("acme", URL, "file").reveal() == "second-key"
    assert vault.remove("acme") and not vault.remove("acme")
    with pytest.raises(KeyMissing, match="no key is kept for the provider acme in the file; give it with `lumen prov"):
        vault.find("acme", URL, "file")


@pytest.mark.parametrize(
    "elsewhere",
    ["https://api.example.com.evil.example/v1", "http://api.example.com/v1", "https://api.example.com:8443/v1",
     "https://evil.example/api.example.com", "https://api.example.com@evil.example/v1"],
)  # fmt: skip
@pytest.mark.parametrize("store", ["file", "keyring"])
def test_a_key_goes_nowhere_but_to_its_origin(
    vault: Vault, ring: Backend, elsewhere: str, store: secrets.Store
) -> None:
    vault.keep("acme", URL, Secret(KEY), store)
    with pytest.raises(KeyMissing, match=r"belongs to https://api[.]example[.]com and goes nowhere else") as caught:
        vault.find("acme", elsewhere, store)
    assert KEY not in str(caught.value)


def test_the_keyring_keeps_a_key(vault: Vault, ring: Backend) -> None:
    vault.keep("acme", URL, Secret("old"), "file")
    vault.keep("acme", URL, Secret(KEY), "keyring")
    assert vault.find("acme", URL, "keyring").reveal() == KEY
    assert "old" not in vault.path.read_text(), "it moved; nothing stays behind"
    other = Vault(vault.path.with_name("another.json"))
    with pytest.raises(KeyMissing):
        other.find("acme", URL, "keyring")
    vault.keep("acme", URL, Secret("third"), "file")
    assert not ring.kept, "and back"
    vault.keep("acme", URL, Secret(KEY), "keyring")
    assert vault.remove("acme") and not ring.kept


def test_a_keyring_that_fails_says_so_and_nothing_more(vault: Vault, ring: Backend) -> None:
    vault.keep("acme", URL, Secret(KEY), "keyring")
    ring.locked = True
    with pytest.raises(KeyMissing, match="did not give the key of the provider acme: RuntimeError") as caught:
        vault.find("acme", URL, "keyring")
    assert KEY not in str(caught.value) and caught.value.__cause__ is None
    with pytest.raises(ConfigError, match="refused: RuntimeError") as refused:
        vault.keep("acme", URL, Secret(KEY), "keyring")
    assert KEY not in str(refused.value)
    assert not vault.remove("acme")


@pytest.mark.parametrize("priority", [0, 0.5, -1])
def test_a_backend_that_does_not_keep_safely_is_none(ring: Backend, vault: Vault, priority: float) -> None:
    ring.priority = priority
    assert secrets.keyring() is None
    with pytest.raises(ConfigError, match="no usable system keyring"):
        vault.keep("acme", URL, Secret(KEY), "keyring")
    with pytest.raises(KeyMissing, match="cannot be used here"):
        vault.find("acme", URL, "keyring")


def test_nothing_shows_a_secret() -> None:
    key = secret(f"  {KEY}\n")
    assert key.reveal() == KEY and key == Secret(KEY) and key != Secret("other") and hash(key) == hash(Secret(KEY))
    assert KEY not in f"{key} {key!r} {[key]} {vars(KeyMissing('x'))}"
    assert not hasattr(key, "__dict__")
    for copied in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(TypeError, match="not copied"):
            copied(key)
    with pytest.raises(TypeError):
        json.dumps(key)


@pytest.mark.parametrize("text", ["", "  \n", "two words", "a\nb", "a\r\nX-Evil: 1", "clé", "\x00", "a" * 9000])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        secret(text)
    assert not text.strip() or text not in str(caught.value)


def test_keys_from_the_environment(vault: Vault) -> None:
    assert read("env:A_KEY", "acme", URL, vault, {"A_KEY": f"{KEY}\n"}).reveal() == KEY
    for environment in ({}, {"A_KEY": ""}, {"A_KEY": " "}):
        with pytest.raises(KeyMissing, match=r"takes its key from \$A_KEY, which is not set"):
            read("env:A_KEY", "acme", URL, vault, environment)
    with pytest.raises(KeyMissing, match="has spaces") as caught:
        read("env:A_KEY", "acme", URL, vault, {"A_KEY": "sk secret"})
    assert "sk secret" not in str(caught.value)
    vault.keep("acme", URL, Secret(KEY), "file")
    assert read("file", "acme", URL, vault, {}).reveal() == KEY


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 2, "keys": {}}', '{"version": 1, "keys": {"a": "k"}}', '{"version":1,"keys":[]}'],
)
def test_a_damaged_file_is_not_overwritten(vault: Vault, text: str) -> None:
    vault.path.parent.mkdir()
    vault.path.write_text(text)
    for act in (lambda: vault.find("a", URL, "file"), lambda: vault.keep("a", URL, Secret(KEY), "file")):
        with pytest.raises(ConfigError, match="is damaged"):
            act()
    assert vault.path.read_text() == text


def _keep(path: Path, name: str) -> None:
    for i in range(5):
        Vault(path).keep(f"{name}{i}", URL, Secret(f"key-{name}{i}"), "file")


def test_two_processes_lose_nothing(vault: Vault) -> None:
    context = get_context("fork")
    running = [context.Process(target=_keep, args=(vault.path, name)) for name in "ab"]
    for process in running:
        process.start()
    for process in running:
        process.join(30)
    assert [process.exitcode for process in running] == [0, 0]
    for name in "ab":
        for i in range(5):
            assert vault.find(f"{name}{i}", URL, "file").reveal() == f"key-{name}{i}"
