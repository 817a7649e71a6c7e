"""`lumen provider` and `lumen models --provider`: adding, showing and removing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lumen.catalogue import prices
from lumen.config.load import load
from lumen.paths import Paths
from lumen.secrets import KeyMissing, vault
from tests.cli.harness import Fake, Ran
from tests.cli.vendor_server import KEY

published = pytest.mark.skipif(not prices.available(), reason="genai-prices is not installed")
Lumen = Callable[..., Ran]
pytestmark = pytest.mark.usefixtures("alone")


# -- add, ls, show, rm -------------------------------------------------------------------------------------------------


def test_a_preset_and_a_key_piped_in(lumen: Lumen, home: Paths, typed: Callable[[str], None]) -> None:
    typed(f"{KEY}\n")
    ran = lumen("provider", "add", "groq")
    assert ran.code == 0 and "takes effect with the next `lumen up`" in ran.out
    assert "kept in a file that only you can read, for https://api.groq.com alone" in ran.err
    provider = load(home.config_file).providers["groq"]
    assert (provider.key, provider.base_url) == ("file", None)
    assert vault(home).find("groq", "https://api.groq.com/openai/v1", "file").reveal() == KEY
    for command in (("ls",), ("ls", "--json"), ("show", "groq"), ("show", "groq", "--json"), ("presets", "--json")):
        shown = lumen("provider", *command)
        assert shown.code == 0 and KEY not in shown.out + shown.err
    assert KEY not in home.config_file.read_text()
    row = lumen("provider", "ls", "--json").json[0]
    assert (row["name"], row["preset"], row["missing"]) == ("groq", "groq", None)
    assert row["capabilities"]["prefill"] == "native"


def test_the_keyring_is_preferred(
    lumen: Lumen, home: Paths, typed: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[tuple[str, str], str] = {}
    backend = SimpleNamespace(
        priority=5,
        get_password=lambda *where: kept.get(where),
        set_password=lambda service, user, text: kept.update({(service, user): text}),
        delete_password=lambda *where: kept.pop(where),
    )
    monkeypatch.setitem(sys.modules, "keyring", SimpleNamespace(get_keyring=lambda: backend))
    typed(KEY)
    assert "kept in the system's keyring" in lumen("provider", "add", "groq").err
    assert load(home.config_file).providers["groq"].key == "keyring" and len(kept) == 1
    typed("another-key")
    lumen("provider", "add", "groq", "--store", "file")
    assert load(home.config_file).providers["groq"].key == "file" and not kept


def test_a_key_is_typed_unseen(lumen: Lumen, home: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    import typer

    def prompt(text: str, **options: Any) -> str:
        asked.append((text, options))
        return KEY

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(typer, "prompt", prompt)
    assert lumen("provider", "add", "groq").code == 0
    ((text, options),) = asked
    assert text == "Key for Groq (empty: from $GROQ_API_KEY)"
    assert options["hide_input"] and options["err"] and not options["show_default"]


def test_no_key_given_means_the_usual_variable(lumen: Lumen, home: Paths) -> None:
    ran = lumen("provider", "add", "groq")
    assert ran.code == 0
    assert "cannot be used yet: the provider groq takes its key from $GROQ_API_KEY, which is not set" in ran.err
    assert load(home.config_file).providers["groq"].key is None
    assert "which is not set" in lumen("provider", "ls").out


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("groq", "--key", KEY), 2, "--key takes env:NAME alone"),
        (("groq", "--key", "env:A", "--no-key"), 2, "--key takes env:NAME alone"),
        (("groq", "--store", "cloud"), 2, "there is no such place; write keyring or file"),
        (("groq", "--store", "keyring"), 1, "no usable system keyring was found"),
        (("grok", "--preset", "gorq"), 2, "there is no preset 'gorq'; did you mean 'groq'?"),
        (("acme",), 2, "give --base-url, or see `lumen provider presets`"),
        (("acme", "--base-url", "https://a.example", "--key", "env:9"), 1, "must be `env:NAME`"),
        (("acme", "--base-url", "ftp://a.example", "--key", "env:A"), 1, "expected an address such as https://"),
        (("acme", "--base-url", "https://a.example", "--dialect", "opnai", "--no-key"), 1, "did you mean 'openai'?"),
        (("azure",), 2, "give --set resource=YOURS"),
        (("azure", "--set", "resource=evil.example/x", "--no-key"), 1, "needs a resource"),
        (("azure", "--set", "resource", "--no-key"), 2, "is not NAME=VALUE"),
        (("groq", "--set", "a=b", "--no-key"), 1, "has no value 'a'"),
        (("groq", "--no-key", "--can", "prefil=none"), 1, "did you mean 'prefill'?"),
        (("groq", "--no-key", "--can", "seed=maybe"), 1, "expected true or false"),
    ],
)
def test_what_add_refuses(
    lumen: Lumen, home: Paths, typed: Callable[[str], None], args: tuple[str, ...], code: int, says: str
) -> None:
    typed(f"{KEY}\n")
    ran = lumen("provider", "add", *args)
    assert (ran.code, ran.out) == (code, "") and says in ran.err
    assert ran.err.count("\n") == 1 and KEY not in ran.err
    assert not home.config_file.exists()
    with pytest.raises(KeyMissing):
        vault(home).find("groq", "https://api.groq.com", "file")


def test_another_server_needs_its_own_key(lumen: Lumen, typed: Callable[[str], None], home: Paths) -> None:
    ran = lumen("provider", "add", "groq", "--base-url", "https://proxy.example/v1")
    assert ran.code == 2 and "no key was given" in ran.err
    typed("key with spaces\n")
    ran = lumen("provider", "add", "groq", "--base-url", "https://proxy.example/v1")
    assert ran.code == 1 and "this is no key" in ran.err and "with spaces\n" not in ran.err
    assert lumen("provider", "add", "local", "--base-url", "http://127.0.0.1:1/v1").code == 0, "a local one needs none"
    assert load(home.config_file).providers["local"].key is None


def test_a_change_keeps_the_key_unless_the_place_changes(
    lumen: Lumen, home: Paths, typed: Callable[[str], None]
) -> None:
    typed(KEY)
    lumen("provider", "add", "acme", "--base-url", "https://api.acme.example/v1")
    ran = lumen("provider", "add", "acme", "--can", "prefill=native", "--can", "max-tokens-field=max_tokens")
    assert ran.code == 0 and "cannot be used" not in ran.err
    provider = load(home.config_file).providers["acme"]
    assert (provider.key, provider.capabilities.prefill) == ("file", "native")
    assert lumen("provider", "add", "acme", "--base-url", "https://api.acme.example/v2").code == 0
    ran = lumen("provider", "add", "acme", "--base-url", "https://api.other.example/v1")
    assert ran.code == 2 and "no key was given" in ran.err, "the old key stays with the old place"
    ran = lumen("provider", "add", "acme", "--base-url", "https://api.other.example/v1", "--key", "env:ACME_KEY")
    assert ran.code == 0
    with pytest.raises(KeyMissing):
        vault(home).find("acme", "https://api.acme.example", "file")


def test_holes_of_an_address_are_filled(lumen: Lumen, home: Paths) -> None:
    ran = lumen("provider", "add", "team", "--preset", "azure", "--set", "resource=my-team")
    assert ran.code == 0
    provider = load(home.config_file).providers["team"]
    assert provider.base_url == "https://my-team.openai.azure.com/openai/v1" and provider.preset == "azure"
    assert lumen("provider", "add", "team", "--can", "seed=no").code == 0
    assert load(home.config_file).providers["team"].capabilities.seed is False


def test_comments_stay_and_a_running_gateway_hears_of_it(lumen: Lumen, home: Paths, fake: Fake) -> None:
    home.config_file.write_text("# mine\nserver:\n  port: 0  # any\n")
    fake.start(statuses=[{"config": str(home.config_file)}])
    assert "in force now" in lumen("provider", "add", "ollama").out
    assert fake.calls("/admin/reload")
    text = home.config_file.read_text()
    assert text.startswith("# mine\nserver:\n  port: 0  # any\n") and "ollama: {}" in text


def test_remove(lumen: Lumen, home: Paths, typed: Callable[[str], None]) -> None:
    typed(KEY)
    lumen("provider", "add", "groq")
    lumen("route", "set", "fast", "--target", "groq/x")
    ran = lumen("provider", "rm", "groq")
    assert ran.code == 1 and "serves the routes fast" in ran.err and "lumen route set" in ran.err
    lumen("route", "rm", "fast")
    assert "and its key is forgotten" in lumen("provider", "rm", "groq").out
    assert not load(home.config_file).providers
    assert KEY not in (home.config_dir / "provider-keys.json").read_text()
    ran = lumen("provider", "rm", "groq")
    assert ran.code == 1 and "there is no provider 'groq'; add it with `lumen provider add groq`" in ran.err


def test_what_a_model_costs_is_said(lumen: Lumen, home: Paths) -> None:
    home.config_file.write_text("# mine\nproviders:\n  mine: {base_url: 'http://127.0.0.1:9/v1'}\n")
    assert (
        lumen("provider", "price", "mine/a", "--input", "0.60/1M", "--output", "2.4", "--per-request", "1usd").code == 0
    )
    assert lumen("provider", "price", "mine/*", "--input", "0", "--output", "0").code == 0
    models = load(home.config_file).providers["mine"].models
    dear, free = models["a"].price, models["*"].price
    assert dear is not None and free is not None
    assert (dear.input, dear.output, dear.per_request) == (600_000, 2_400_000, 10**12)
    assert (free.input, free.output, free.per_request) == (0, 0, 0)
    lifted = ("--per-request", "none", "--cached-input", "0.1", "--cache-write", "none")
    assert lumen("provider", "price", "mine/a", *lifted).code == 0
    dear = load(home.config_file).providers["mine"].models["a"].price
    assert dear is not None
    assert (dear.input, dear.per_request, dear.cached_input, dear.cache_write) == (600_000, 0, 100_000, None)
    assert home.config_file.read_text().startswith("# mine\n")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["mine", "--input", "1"], 2, "'mine' is not NAME/MODEL"),
        (["mine/a"], 2, "nothing to set"),
        (["mine/a", "--input", "cheap"], 2, "--input cheap: expected a price such as 0.60/1M"),
        (["mine/a", "--per-image", "1"], 2, "--per-image 1: expected an amount"),
        (["mien/a", "--input", "1"], 1, "there is no provider 'mien'; did you mean 'mine'?"),
    ],
)
def test_a_price_that_is_none_is_not_written(lumen: Lumen, home: Paths, args: list[str], code: int, said: str) -> None:
    home.config_file.write_text(text := "providers:\n  mine: {base_url: 'http://127.0.0.1:9/v1'}\n")
    ran = lumen("provider", "price", *args)
    assert (ran.code, ran.out) == (code, "") and said in ran.err
    assert home.config_file.read_text() == text


def test_show_and_presets(lumen: Lumen) -> None:
    lumen("provider", "add", "anthropic")
    shown = lumen("provider", "show", "anthropic").out
    assert "preset anthropic" in shown and "no seed" in shown and "claude-3-*: prefill=native" in shown
    assert "token_ids" not in shown and "key       env:ANTHROPIC_API_KEY" in shown
    assert "did you mean 'anthropic'" in lumen("provider", "show", "antropic").err
    listed = lumen("provider", "presets")
    assert "https://api.groq.com/openai/v1" in listed.out and "$GROQ_API_KEY" in listed.out
    assert len(lumen("provider", "presets", "--json").json) >= 32


def test_an_empty_list_says_what_to_do(lumen: Lumen) -> None:
    ran = lumen("provider", "ls")
    assert ran.code == 0 and "lumen provider presets" in ran.err


# -- models ------------------------------------------------------------------------------------------------------------


def test_models_of_a_provider_as_configured(lumen: Lumen, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "providers:\n  acme:\n    base_url: https://a.example/v1\n    models:\n"
        "      big: {price: {input: 0.4, output: 1.6/1M, per_request: 0.005usd}, context: 9000}\n      plain: {}\n"
    )
    shown = lumen("models", "--provider", "acme", "--config", str(path))
    assert ["acme/big", "$0.4", "-", "$1.6", "9000", "0.005usd", "a", "request"] in [
        r.split() for r in shown.out.splitlines()
    ]
    rows = lumen("models", "--search", "BIG", "--config", str(path), "--json").json
    assert [row["name"] for row in rows] == ["acme/big"]
    assert rows[0]["price"]["input"] == 400_000 and rows[0]["context"] == 9000 and rows[0]["capabilities"]["seed"]
    ran = lumen("models", "--provider", "acne", "--config", str(path))
    assert ran.code == 1 and "did you mean 'acme'?" in ran.err


@published
def test_models_of_a_vendor_that_is_not_configured(lumen: Lumen) -> None:
    rows = lumen("models", "--provider", "groq", "--search", "llama 70b versatile", "--json").json
    assert "groq/llama-3.3-70b-versatile" in [row["name"] for row in rows]
    assert all(row["price"]["input"] > 0 for row in rows)
    assert lumen("models", "--provider", "groq", "--search", "no-such-thing").code == 0
    ran = lumen("models", "--search", "llama 70b versatile")
    told = " ".join((ran.out + ran.err).split())
    assert "for the providers that are configured (`--provider NAME`: for any)" in told


def test_models_without_published_prices_say_so(lumen: Lumen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    assert "Published prices are missing" in lumen("models", "--provider", "groq").err
    assert lumen("models", "--provider", "groq", "--json").json == []
