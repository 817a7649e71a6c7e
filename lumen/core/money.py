"""Money as whole numbers. Pure.

The unit is the **pico-dollar** (10⁻¹² US dollar). One pico-dollar a token is one micro-dollar a million tokens, so
every published price (`$0.0375/1M` is 37,500 pico-dollars a token) and every cost made of whole tokens is exact: a
sum of token costs is never rounded. What can be finer is rounded **up**, once, where it arises: a price below one
pico-dollar a token (`per_token`), and the cost of a time (`lumen/core/meter.py`). Amounts shown to people are rounded
half up to micro-dollars, after adding up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal, InvalidOperation

DOLLAR = 10**12
MICRO = 10**6
# What fits a signed 64-bit column with room to add: no limit and no single cost may be more (9 million dollars).
MOST = 9_000_000 * DOLLAR
# One dollar a token: no price is higher, so that a product with any token count stays meaningful.
_DEAREST = DOLLAR

_NUMBER = r"\d{1,12}(?:\.\d{1,18})?"
_AMOUNT = re.compile(rf"(?:\$\s*({_NUMBER})|({_NUMBER})\s*usd)", re.ASCII | re.IGNORECASE)
_RATE = re.compile(rf"\$?\s*({_NUMBER})\s*(?:usd)?\s*/\s*(1m|1k|token)", re.ASCII | re.IGNORECASE)
_TOKENS = {"1m": 10**6, "1k": 10**3, "token": 1}


@dataclass(frozen=True, slots=True)
class Tier:
    """The prices of a request with more than `over` input tokens; they hold for the whole of it, not its excess.

    `dearest`: what an input token costs at most, whatever is done with it.
    """

    over: int
    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None
    dearest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dearest", max(self.input, self.cached_input or 0, self.cache_write or 0))


@dataclass(frozen=True, slots=True)
class Price:
    """What a target costs, in pico-dollars: a token, a request, a second of its device, an image, a second of audio.

    `cached_input`, `cache_write`: input tokens read from, or written to, a cache; `None`: as any input token.
    Reasoning tokens are output tokens. `tiers`: in ascending order of `over`; the last one reached applies.
    `dearest`: what an input token costs at most below the first tier. `free`: nothing this target does costs anything.
    `by_unit`: images or audio have prices of their own.

    Raises:
        ValueError: a price that is negative or above one dollar a token, or tiers out of order.
    """

    input: int = 0
    output: int = 0
    cached_input: int | None = None
    cache_write: int | None = None
    per_request: int = 0
    per_second: int = 0
    tiers: tuple[Tier, ...] = ()
    per_image: int = 0
    per_audio_second: int = 0
    dearest: int = field(init=False, repr=False, compare=False)
    by_unit: bool = field(init=False, repr=False, compare=False)
    free: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for every request, so known once.
        object.__setattr__(self, "dearest", max(self.input, self.cached_input or 0, self.cache_write or 0))
        steps: tuple[Price | Tier, ...] = (self, *self.tiers)
        tokens = any(s.dearest or s.output for s in steps)
        object.__setattr__(self, "by_unit", bool(self.per_image or self.per_audio_second))
        object.__setattr__(self, "free", not (tokens or self.per_request or self.per_second or self.by_unit))
        prices = [p for s in steps for p in (s.input, s.output, s.cached_input or 0, s.cache_write or 0)]
        if not all(0 <= price <= _DEAREST for price in prices):
            raise ValueError("a price is between 0 and 1 dollar a token")
        whole = (self.per_request, self.per_second, self.per_image, self.per_audio_second)
        if not all(0 <= price <= MOST for price in whole):
            raise ValueError("a price is not negative")
        overs = [tier.over for tier in self.tiers]
        if any(over < 0 for over in overs) or overs != sorted(set(overs)):
            raise ValueError("tiers begin at ascending numbers of input tokens")

    def at(self, input_tokens: int) -> Price | Tier:
        """The prices that hold for a request with so many input tokens."""
        found: Price | Tier = self
        for tier in self.tiers:
            if input_tokens > tier.over:
                found = tier
        return found


FREE = Price()


def per_token(dollars_per_million: Decimal | str | int) -> int:
    """Pico-dollars a token from dollars a million tokens, rounded up.

    Raises:
        ValueError: not a price.
    """
    try:
        value = Decimal(dollars_per_million)
    except InvalidOperation:
        raise ValueError("a price is a number of dollars a million tokens") from None
    if not value.is_finite() or not 0 <= value <= _DEAREST // MICRO:
        raise ValueError("a price is between 0 and 1 dollar a token")
    return int((value * MICRO).to_integral_value(ROUND_CEILING))


def parse_amount(written: str) -> int:
    """Pico-dollars from `5usd`, `0.05 USD` or `$5`.

    Raises:
        ValueError: not an amount, finer than a pico-dollar, or above nine million dollars; says what to write.
    """
    found = _AMOUNT.fullmatch(written.strip())
    if found is None:
        raise ValueError("expected an amount such as 5usd or 0.05usd")
    value = Decimal(found[1] or found[2]) * DOLLAR
    if value != int(value) or value > MOST:
        raise ValueError("an amount is at most 9000000usd and has at most 12 decimal places")
    return int(value)


def format_amount(pico: int) -> str:
    """The amount as `parse_amount` reads it back exactly: `0.05usd`."""
    return f"{_plain(Decimal(pico) / DOLLAR)}usd"


def parse_rate(written: str) -> int:
    """Pico-dollars a token from `0.60/1M`, `$0.60/1M`, `0.002usd/1k`.

    Raises:
        ValueError: not a price, or finer than a pico-dollar a token; says what to write.
    """
    found = _RATE.fullmatch(written.strip())
    if found is None:
        raise ValueError("expected a price such as 0.60/1M (dollars a million tokens)")
    value = Decimal(found[1]) * DOLLAR / _TOKENS[found[2].lower()]
    if value != int(value) or value > _DEAREST:
        raise ValueError("a price is at most 1 dollar a token and has at most 6 decimal places a million tokens")
    return int(value)


def format_rate(pico: int) -> str:
    """A price as `parse_rate` reads it back exactly: `0.6/1M`."""
    return f"{_plain(Decimal(pico) / MICRO)}/1M"


def micro(pico: int) -> int:
    """Micro-dollars, rounded half up; negative amounts too."""
    return (2 * pico + MICRO) // (2 * MICRO)


def shown(pico: int) -> str:
    """An amount for people: `$1.234560` with six decimal places."""
    value = micro(pico)
    whole, rest = divmod(abs(value), MICRO)
    return f"{'-' if value < 0 else ''}${whole:,}.{rest:06d}"


def _plain(value: Decimal) -> str:
    """Without an exponent and without zeros at the end."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
