"""From a configuration to upstreams: presets, overrides, keys, and providers whose key is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lumen.catalogue import Catalogue, vendor
from lumen.config.load import parse
from lumen.config.schema import Config
from lumen.core.errors import ConfigError, UnavailableError
from lumen.core.money import Price
from lumen.gateway.upstream import Remote
from lumen.origins import Closed, Opened, Upstreams, headers_of, hidden, offered, unlock
from lumen.providers.base import HttpCall
from lumen.secrets import Secret, Vault

KEY = "sk-very-secret"


def config(text: str) -> Config:
    return parse(f"providers:\n{text}", "c.yaml")


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "provider-keys.json")


@pytest.fixture
def upstreams(vault: Vault) -> Upstreams:
    # No local model is asked for anything here.
    nobody: Any = None
    return Upstreams(nobody, vault)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GROQ_API_KEY", "OPENAI_API_KEY", "ACME_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_preset_says_all_that_is_left_out() -> None:
    found = vendor("groq", config("  groq: {}\n").providers["groq"])
    assert (found.base_url, found.key, found.dialect) == (
        "https://api.groq.com/openai/v1",
        "env:GROQ_API_KEY",
        "openai",
    )
    assert found.capabilities.prefill == "native" and not found.capabilities.n and found.capabilities.seed
    named = vendor(
        "fast", config("  fast: {preset: groq, key: env:ACME_KEY, capabilities: {n: true}}\n").providers["fast"]
    )
    assert named.base_url == found.base_url and named.key == "env:ACME_KEY"
    assert named.capabilities.n and named.capabilities.prefill == "native"


def test_the_usual_key_goes_to_the_vendor_alone() -> None:
    text = "  groq: {base_url: 'https://proxy.example/v1'}\n  other: {preset: groq, base_url: 'https://proxy.example/v1'}\n"
    proxy = config(text).providers
    assert vendor("groq", proxy["groq"]).preset is None, "a name alone makes no vendor of another host"
    assert vendor("groq", proxy["groq"]).key is None
    other = vendor("other", proxy["other"])
    assert other.preset is not None and other.key is None and other.capabilities.prefill == "native"
    own = config("  groq: {base_url: 'https://api.groq.com/openai/v2/'}\n").providers["groq"]
    assert vendor("groq", own).key == "env:GROQ_API_KEY" and vendor("groq", own).base_url.endswith("/v2")


def test_a_server_that_speaks_token_ids_takes_an_engines_fields() -> None:
    found = vendor(
        "box", config("  box: {base_url: 'http://127.0.0.1:1/v1', capabilities: {token_ids: true}}\n").providers["box"]
    )
    assert found.capabilities.token_ids and found.capabilities.samplers and not found.capabilities.local


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("  acme: {}\n", 2, "needs 'base_url' or a 'preset'"),
        ("  grok: {}\n", 2, "did you mean the preset 'groq'"),
        ("  a: {preset: gorq}\n", 2, "there is no preset 'gorq'; did you mean 'groq'"),
        ("  azure: {}\n", 2, "needs 'base_url': https://{resource}.openai.azure.com/openai/v1 with your own resource"),
        ("  groq:\n    key: gsk_secret\n", 3, "must be `env:NAME`"),
        ("  groq:\n    key: keychain\n", 3, "or `keyring` or `file`"),
        ("  groq:\n    capabilities:\n      prefil: none\n", 4, "did you mean 'prefill'"),
        ("  groq:\n    models:\n      m: {context: 0}\n", 4, "expected a number of tokens"),
        ("  groq:\n    models:\n      'a b': {}\n", 4, "cannot name a model"),
    ],
)
def test_what_is_refused(text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(text)
    assert says in str(caught.value) and caught.value.where == f"c.yaml:{line}"
    assert "gsk_secret" not in str(caught.value)


def test_a_missing_key_leaves_out_one_provider(upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config("  groq: {}\n  openai: {}\n")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    origins = upstreams.of(text, [])
    assert isinstance(origins.remote["groq"].upstream, Closed)
    assert isinstance(origins.remote["openai"].upstream, Remote)
    assert upstreams.missing == {"groq": "the provider groq takes its key from $GROQ_API_KEY, which is not set"}
    kept = origins.remote["openai"].upstream
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    again = upstreams.of(text, [])
    assert isinstance(again.remote["groq"].upstream, Remote) and upstreams.missing == {}
    assert again.remote["openai"].upstream is kept, "connections stay across reloads"
    upstreams.close()


@pytest.mark.anyio
async def test_a_provider_without_its_key_says_only_that(upstreams: Upstreams) -> None:
    closed = upstreams.of(config("  groq: {}\n"), []).remote["groq"].upstream
    with pytest.raises(UnavailableError) as caught:
        await closed.open(lambda name: HttpCall("", b"", ""), "m", None, False)  # type: ignore[arg-type]
    assert "GROQ" not in caught.value.message and "http" not in caught.value.message
    closed.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_required_key_must_be_there(upstreams: Upstreams) -> None:
    with pytest.raises(ConfigError, match=r"takes its key from \$GROQ_API_KEY"):
        upstreams.of(config("  groq: {required: true}\n"), [])


def test_a_kept_key_serves_its_origin_alone(upstreams: Upstreams, vault: Vault) -> None:
    vault.keep("acme", "https://api.acme.example/v1", Secret(KEY), "file")
    upstreams.of(config("  acme: {base_url: 'https://api.acme.example/v2', key: file}\n"), [])
    assert upstreams.missing == {}
    upstreams.of(config("  acme: {base_url: 'https://evil.example/v1', key: file}\n"), [])
    assert "belongs to https://api.acme.example and goes nowhere else" in upstreams.missing["acme"]
    assert KEY not in upstreams.missing["acme"]
    assert KEY not in repr(unlock(config("  acme: {base_url: 'https://api.acme.example', key: file}\n"), vault))


def test_models_of_providers_with_their_keys_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    config = parse(
        "providers:\n  openai: {}\n  groq: {}\n  mine:\n    base_url: http://127.0.0.1:9/v1\n"
        "    models:\n      big: {}\n      small-*: {}\n",
        "c.yaml",
    )
    opened = unlock(config)
    names = offered(Catalogue.of(config), opened)
    assert "mine/big" in names and "openai/gpt-4o-mini" in names
    assert not any(name.startswith("groq/") or "*" in name for name in names)
    assert len(names) == len(set(names))


def test_keys_can_be_read_beforehand(upstreams: Upstreams) -> None:
    text = config("  acme: {base_url: 'https://a.example/v1', headers: {X-Team: blue}}\n")
    opened = {"acme": Opened(vendor("acme", text.providers["acme"]), Secret(KEY))}
    origins = upstreams.of(text, [], opened)
    assert isinstance(origins.remote["acme"].upstream, Remote)


def test_a_dialect_gets_what_its_model_can_do(upstreams: Upstreams) -> None:
    text = config("  groq: {models: {old: {capabilities: {prefill: none}, context: 7, price: {input: 1}}}}\n")
    groq = upstreams.of(text, []).remote["groq"]
    dialect, can, offer = groq.of("any-model-at-all")
    assert can.prefill == "native" and not can.n and dialect.can == can  # type: ignore[attr-defined]
    assert (offer.price, offer.context) == (None, None)
    dialect, can, offer = groq.of("old")
    assert can.prefill == "none" and dialect.can == can  # type: ignore[attr-defined]
    assert (offer.price, offer.context) == (Price(input=10**6), 7)


def test_every_dialect_carries_its_key_its_own_way() -> None:
    for name, header in {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}.items():
        text = config(f"  acme: {{base_url: 'https://a.example', dialect: {name}, headers: {{X-Team: blue}}}}\n")
        found = Opened(vendor("acme", text.providers["acme"]), Secret(KEY))
        headers = {field.lower(): value for field, value in headers_of(found).items()}
        assert headers[header].endswith(KEY) and headers["x-team"] == "blue"
        assert [field for field, value in headers.items() if KEY in value] == [header]


def test_engines_see_no_providers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "x")
    monkeypatch.setenv("HARMLESS", "x")
    names = hidden(config("  groq: {}\n  acme: {base_url: 'https://a.example', key: env:ODD_NAME}\n  ollama: {}\n"))
    assert {"GROQ_API_KEY", "ODD_NAME", "SOME_TOKEN"} <= names
    assert "HARMLESS" not in names and "file" not in names
    kept = hidden(config("  acme: {base_url: 'https://a.example', key: keyring}\n"))
    assert "keyring" not in kept
