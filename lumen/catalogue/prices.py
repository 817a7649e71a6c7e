"""Published prices and context windows, from the `genai-prices` package (MIT).

The package takes half a second to import and is read only when a configuration names a vendor that it knows, never
for a request. Without it nothing has a price but what the configuration gives one.

Its figures are dollars a million tokens with at most six meaningful decimal places. Some are stored as the nearest
binary fraction (`0.18000000000000002`); that noise is cut at the ninth place before `per_token` rounds up.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import Any

from lumen.core.money import DOLLAR, Price, Tier, per_token

_NOISE = Decimal("1e-9")
_RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
}
_PER_THOUSAND_REQUESTS = "requests_kcount"
_SUFFIX = "{suffix}"


@dataclass(frozen=True, slots=True)
class Listed:
    """One model as the package has it.

    `price`: `None` where it is not sold by the token. `besides`: charges that a price by the token leaves out, such
    as searches or tokens of audio, in the package's words. `deprecated`: the vendor means to withdraw it.
    """

    model: str
    title: str
    price: Price | None
    context: int | None
    besides: tuple[str, ...] = ()
    deprecated: bool = False


def available() -> bool:
    """Whether the package is there; reads all of its data, so that no later look-up waits for that."""
    package = _package()
    return package is not None and bool(package.get_snapshot().providers)


def find(vendor: str, model: str, now: datetime) -> Listed | None:
    """What the package has on `model` of the vendor it calls `vendor`; `now`: prices change at dates it knows.

    `{suffix}` in `vendor` stands for what follows the last `:` of the model's name.
    """
    if _SUFFIX in vendor:
        model, _, suffix = model.rpartition(":")
        vendor = vendor.replace(_SUFFIX, suffix)
    package = _package()
    if package is None or not model:
        return None
    # Not by the package's own look-up: that remembers every name it was ever asked for.
    providers = package.get_snapshot().providers
    provider = next((provider for provider in providers if provider.id == vendor), None)
    found = provider.find_model(model, all_providers=providers) if provider is not None else None
    return _listed(found, model, now) if found is not None else None


def every(vendor: str, now: datetime) -> Iterator[Listed]:
    """All the package has of a vendor, by the names that requests use."""
    package = _package()
    if package is None:
        return
    head, open_, _ = vendor.partition(_SUFFIX)
    for provider in package.get_snapshot().providers:
        if provider.id != vendor and not (open_ and provider.id.startswith(head)):
            continue
        suffix = f":{provider.id.removeprefix(head)}" if open_ else ""
        for found in provider.models:
            yield _listed(found, found.id + suffix, now)


def _package() -> Any | None:
    try:
        return importlib.import_module("genai_prices.data_snapshot")
    except ImportError:
        return None


def _listed(found: Any, model: str, now: datetime) -> Listed:
    prices = _dearest(found, now)
    besides = tuple(
        sorted(
            key.removesuffix("_mtok").removesuffix("_kcount").replace("_", " ")
            for key, value in vars(prices).items()
            if value is not None and key not in (*_RATES.values(), _PER_THOUSAND_REQUESTS)
        )
    )
    context = found.context_window
    return Listed(
        model=model,
        title=found.name or model,
        price=_price(prices),
        context=context if isinstance(context, int) and context > 0 else None,
        besides=besides,
        deprecated=bool(found.deprecated),
    )


def _dearest(found: Any, now: datetime) -> Any:
    """The prices in force on the day of `now`; of those that change with the hour, the dearest of that day.

    A price is taken once for as long as a configuration is in force: it must not turn out to be too low.
    """
    if not isinstance(found.prices, list):
        return found.prices
    hours = [item.constraint for item in found.prices if hasattr(item.constraint, "start_time")]
    moments = [now, *(datetime.combine(now.date(), t, t.tzinfo or now.tzinfo) for h in hours for t in _ends(h))]
    return max((found.get_prices(moment) for moment in moments), key=_weight)


def _ends(hours: Any) -> tuple[Any, Any]:
    return hours.start_time, hours.end_time


def _weight(prices: Any) -> tuple[Decimal, Decimal]:
    return _at(prices, "output_mtok", 0) or Decimal(), _at(prices, "input_mtok", 0) or Decimal()


def _price(prices: Any) -> Price | None:
    if prices.input_mtok is None:
        return None
    starts = sorted({tier.start for key in _RATES.values() for tier in _tiers(prices, key)})
    per_request = (getattr(prices, _PER_THOUSAND_REQUESTS) or Decimal()) * DOLLAR / 1000
    return Price(
        **_rates(prices, 0),
        per_request=int(per_request.to_integral_value(ROUND_CEILING)),
        # A tier holds above its start, as it does in the package.
        tiers=tuple(Tier(over=start, **_rates(prices, start + 1)) for start in starts),
    )


def _rates(prices: Any, tokens: int) -> dict[str, Any]:
    """The rates for a request of so many input tokens. Only what takes no output has no price for it."""
    found = {name: _at(prices, key, tokens) for name, key in _RATES.items()}
    exact = {
        name: per_token(value.quantize(_NOISE, ROUND_HALF_EVEN)) for name, value in found.items() if value is not None
    }
    return {"output": 0, **exact}


def _at(prices: Any, key: str, tokens: int) -> Decimal | None:
    value = getattr(prices, key)
    if not hasattr(value, "tiers"):
        return value  # type: ignore[no-any-return]
    found: Decimal = value.base
    for tier in value.tiers:
        if tokens > tier.start:
            found = tier.price
    return found


def _tiers(prices: Any, key: str) -> list[Any]:
    return getattr(getattr(prices, key), "tiers", [])
