"""Prices and context windows: published ones as the package has them, the configuration's own above them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.catalogue import Catalogue, prices
from lumen.config import presets
from lumen.config.load import parse
from lumen.core.errors import ConfigError
from lumen.core.money import FREE, Price, Tier, per_token

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
published = pytest.mark.skipif(not prices.available(), reason="genai-prices is not installed")


def catalogue(text: str) -> Catalogue:
    return Catalogue.of(parse(f"providers:\n{text}", "c.yaml"))


# -- the configuration's word ------------------------------------------------------------------------------------------


def test_what_the_configuration_says_counts_most() -> None:
    known = catalogue(
        "  acme:\n    base_url: https://api.acme.example/v1\n"
        "    models:\n"
        '      "big-*": {context: 1000, price: {input: 1, output: 2/1M}, capabilities: {seed: false}}\n'
        "      big-one:\n"
        "        price: {input: 0.15/1M, output: 0.000001/1M, cached_input: 0, per_request: 0.001usd,"
        " tiers: [{over: 200000, input: 0.3}]}\n"
        "        capabilities: {prefill: native}\n"
    )
    assert known.price("acme", "big-one") == Price(
        input=150_000, output=1, cached_input=0, per_request=10**9, tiers=(Tier(200_000, 300_000, 0),)
    )
    assert known.context("acme", "big-one") == 1000, "what the name leaves open, the pattern may say"
    assert known.price("acme", "big-two") == Price(input=10**6, output=2 * 10**6)
    can = known.capabilities("acme", "big-one")
    assert (can.prefill, can.seed, can.logprobs) == ("native", False, True)
    assert known.price("acme", "small") is None and known.context("acme", "small") is None
    assert known.capabilities("acme", "small").seed


def test_a_price_of_nothing_is_not_a_missing_price() -> None:
    known = catalogue("  ollama: {}\n  acme: {base_url: 'https://a.example/v1'}\n")
    assert known.price("ollama", "anything") == FREE
    assert known.price("acme", "anything") is None
    assert known.search() == []


@pytest.mark.parametrize(
    ("price", "says"),
    [
        ("{input: -1}", "price such as 0.60/1M"),
        ("{input: .nan}", "price such as 0.60/1M"),
        ("{input: 0.0000001}", "at most 6 decimal places"),
        ("{input: lots}", "price such as 0.60/1M"),
        ("{input: [1]}", "expected a price such as 0.60/1M .*got a list"),
        ("{input: 1000001}", "at most 1 dollar a token"),
        ("{per_request: 5}", "an amount such as"),
        ("{inpt: 1}", "did you mean 'input'"),
        ("{tiers: [{over: 5, input: 1}, {over: 5, input: 2}]}", "ascending"),
    ],
)
def test_prices_that_are_none(price: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        catalogue(f"  acme:\n    base_url: https://a.example\n    models:\n      m: {{price: {price}}}\n")


def test_patterns_take_what_they_match_and_a_star_nothing_else() -> None:
    known = catalogue(
        "  acme:\n    base_url: https://a.example\n    models:\n"
        '      "a[b]": {context: 5}\n      "*-mini": {context: 7}\n'
    )
    assert known.context("acme", "a[b]") == 5
    assert known.context("acme", "ab") is None
    assert known.context("acme", "x/y-mini") == 7


# -- published data ----------------------------------------------------------------------------------------------------


def test_the_package_is_imported_only_when_a_price_is_asked_for() -> None:
    code = (
        "import sys; from lumen.config.load import parse; from lumen.catalogue import Catalogue\n"
        "import lumen.origins\n"
        "c = Catalogue.of(parse('providers: {ollama: {}}', 'c')); c.price('ollama', 'm'); assert c.load()\n"
        "assert not [m for m in sys.modules if m.startswith(('genai_prices', 'pydantic'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_without_the_package_nothing_published_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    known = catalogue("  openai: {models: {mine: {price: {input: 1}}}}\n")
    assert not known.load()
    assert known.price("openai", "gpt-4.1-mini") is None and known.context("openai", "gpt-4.1-mini") is None
    assert [entry.model for entry in known.search()] == ["mine"]


@published
def test_published_prices_of_well_known_models() -> None:
    known = catalogue("  openai: {}\n  perplexity: {}\n  hub: {preset: huggingface}\n")
    assert known.load()
    assert known.price("openai", "gpt-4.1-mini") == Price(input=400_000, output=1_600_000, cached_input=100_000)
    assert (known.context("openai", "gpt-4.1-mini") or 0) >= 1_000_000
    assert known.price("openai", "gpt-4.1-mini-2025-04-14") == known.price("openai", "gpt-4.1-mini")
    assert known.price("openai", "text-embedding-3-small") == Price(input=20_000, output=0)
    sonar = known.price("perplexity", "sonar")
    assert sonar is not None and sonar.per_request > 0
    assert known.price("openai", "no-such-model") is None
    assert known.price("hub", "Qwen/Qwen3-VL-8B-Instruct:together") is not None
    assert known.price("hub", "Qwen/Qwen3-VL-8B-Instruct") is None, "which vendor serves it is not known"


@published
def test_every_published_price_can_be_used() -> None:
    known = catalogue(
        "".join(
            f"  {name}: {{{rest}}}\n"
            for name, rest in {
                "openai": "", "azure": "base_url: https://x.openai.azure.com/openai/v1", "groq": "", "together": "",
                "fireworks": "", "deepseek": "", "mistral": "", "xai": "", "openrouter": "", "perplexity": "",
                "moonshot": "", "novita": "", "cohere": "", "minimax": "", "baseten": "", "huggingface": "",
            }.items()
        )
    )  # fmt: skip
    entries = known.search()
    assert len(entries) > 1000
    assert entries == sorted(entries, key=lambda entry: entry.name)
    priced = [entry for entry in entries if entry.price is not None]
    assert len(priced) > len(entries) * 0.8
    # What a search shows is what a look-up by name finds, unless an earlier name of the vendor matches it too.
    same = [known.entry(entry.provider, entry.model).price == entry.price for entry in entries]
    assert sum(same) > len(same) * 0.95
    assert {entry.name for entry in known.search("LLAMA 70b", "groq")} >= {"groq/llama-3.3-70b-versatile"}
    assert known.search("llama", "nobody") == []


@published
def test_the_whole_package_converts() -> None:
    package: Any = prices._package()
    ids = [provider.id for provider in package.get_snapshot().providers]
    listed = [found for name in ids for found in prices.every(name, NOW)]
    assert len(listed) > 2000
    assert sum(found.price is not None for found in listed) > 2000
    used = {name for preset in map(presets.find, presets.names()) if (name := preset.prices)}
    assert {name for name in used if "{" not in name} <= set(ids), "a preset names a vendor that the package has not"


Rate = st.integers(0, 10**9)


class Package:
    """The package with a single model, `m` of the vendor `v`, at these prices."""

    def __init__(self, found: Any) -> None:
        model = SimpleNamespace(
            id="m", name="M", context_window=5, deprecated=None, prices=found, get_prices=lambda at: _pick(found, at)
        )
        find = {"m": model}.get
        self.providers = [SimpleNamespace(id="v", models=[model], find_model=lambda name, all_providers: find(name))]

    def get_snapshot(self) -> Package:
        return self


def _pick(found: Any, moment: datetime) -> Any:
    return next(item.prices for item in reversed(found) if item.constraint is None or item.constraint.active(moment))


@published
@given(base=Rate, dearer=Rate, output=Rate, start=st.integers(0, 10**6), tokens=st.integers(0, 10**7))
def test_a_cost_is_the_one_the_package_computes(base: int, dearer: int, output: int, start: int, tokens: int) -> None:
    from genai_prices.types import ModelPrice, TieredPrices, Usage
    from genai_prices.types import Tier as PackageTier

    def dollars(pico: int) -> Decimal:
        return Decimal(pico) / 10**6

    theirs = ModelPrice(
        input_mtok=TieredPrices(base=dollars(base), tiers=[PackageTier(start=start, price=dollars(dearer))]),
        output_mtok=dollars(output),
    )
    ours = prices._price(theirs)
    assert ours is not None
    at = ours.at(tokens)
    cost = at.input * tokens + at.output * 7
    assert Decimal(cost) / 10**12 == theirs.calc_price(Usage(input_tokens=tokens, output_tokens=7))["total_price"]


@published
def test_a_price_that_changes_with_the_hour_is_the_dearest_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint, TimeOfDateConstraint

    def at(price: str) -> ModelPrice:
        return ModelPrice(input_mtok=Decimal(price), output_mtok=Decimal(price))

    night = TimeOfDateConstraint(start_time=time(1, tzinfo=UTC), end_time=time(4, tzinfo=UTC))
    noon = TimeOfDateConstraint(start_time=time(9, tzinfo=UTC), end_time=time(10, tzinfo=UTC))
    later = StartDateConstraint(start_date=date(2027, 1, 1))
    found = [ConditionalPrice(prices=at("2")), ConditionalPrice(night, prices=at("1")),
             ConditionalPrice(noon, prices=at("5")), ConditionalPrice(later, prices=at("9"))]  # fmt: skip
    monkeypatch.setattr(prices, "_package", lambda: Package(found))
    listed = prices.find("v", "m", NOW)
    assert listed is not None and listed.price == Price(5_000_000, 5_000_000)
    listed = prices.find("v", "m", NOW.replace(year=2027))
    assert listed is not None and listed.price == Price(9_000_000, 9_000_000)
    assert [entry.model for entry in prices.every("v", NOW)] == ["m"] and list(prices.every("w", NOW)) == []


@published
def test_names_that_were_asked_for_are_not_remembered() -> None:
    package: Any = prices._package()
    snapshot = package.get_snapshot()
    before = len(snapshot._lookup_cache), len(snapshot._provider_cache), len(snapshot._provider_misses)
    known = catalogue("  openai: {}\n")
    for i in range(50):
        known.entry("openai", f"gpt-4.1-mini-2025-04-{i}")
    assert (len(snapshot._lookup_cache), len(snapshot._provider_cache), len(snapshot._provider_misses)) == before


@published
def test_noise_of_binary_fractions_is_cut_and_what_is_finer_is_rounded_up() -> None:
    from genai_prices.types import ModelPrice

    found = prices._price(ModelPrice(input_mtok=Decimal("0.18000000000000002"), output_mtok=Decimal("0.0833333333333")))
    assert found == Price(180_000, 83_334)
    assert prices._price(ModelPrice(output_mtok=Decimal(1))) is None
    assert prices._price(ModelPrice(audio_hours=Decimal(1))) is None
    assert prices._price(ModelPrice(input_mtok=Decimal(1), requests_kcount=Decimal("5"))) == Price(
        per_token(1), 0, per_request=5 * 10**9
    )
