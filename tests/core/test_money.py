from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.money import (
    DOLLAR,
    MICRO,
    MOST,
    Price,
    Tier,
    format_amount,
    format_rate,
    micro,
    parse_amount,
    parse_rate,
    per_token,
    shown,
)


@pytest.mark.parametrize(
    ("written", "pico"),
    [("5usd", 5 * DOLLAR), ("0.05usd", DOLLAR // 20), ("$5", 5 * DOLLAR), (" 0.05 USD ", DOLLAR // 20),
     ("0usd", 0), ("0.000000000001usd", 1), ("9000000usd", MOST)],
)  # fmt: skip
def test_amounts(written: str, pico: int) -> None:
    assert parse_amount(written) == pico


@pytest.mark.parametrize(
    "written", ["", "5", "5eur", "-5usd", "5usd/1M", "1e3usd", "$5usd", "0.0000000000001usd", "9000000.1usd", "٥usd"]
)
def test_what_is_no_amount(written: str) -> None:
    with pytest.raises(ValueError, match=r"amount"):
        parse_amount(written)


@pytest.mark.parametrize(
    ("written", "pico"),
    [("0.60/1M", 600_000), ("0.0375/1M", 37_500), ("$3/1M", 3_000_000), ("0.002usd/1k", 2_000_000),
     ("0.000001/1M", 1), ("1/token", DOLLAR), ("0/1m", 0)],
)  # fmt: skip
def test_rates(written: str, pico: int) -> None:
    assert parse_rate(written) == pico


@pytest.mark.parametrize("written", ["", "0.6", "0.6usd", "-1/1M", "0.0000001/1M", "2/token", "0.6/1G"])
def test_what_is_no_rate(written: str) -> None:
    with pytest.raises(ValueError, match=r"price"):
        parse_rate(written)


@given(st.integers(0, MOST))
def test_an_amount_reads_back(pico: int) -> None:
    assert parse_amount(format_amount(pico)) == pico


@given(st.integers(0, DOLLAR))
def test_a_rate_reads_back(pico: int) -> None:
    assert parse_rate(format_rate(pico)) == pico


def test_a_price_finer_than_a_pico_dollar_is_rounded_up() -> None:
    assert per_token("0.0375") == 37_500
    assert per_token(Decimal("0.0000001")) == 1
    assert per_token("2.0000001") == 2_000_001
    assert per_token(0) == 0
    for wrong in ("-1", "nan", "inf", "text", "1000001"):
        with pytest.raises(ValueError, match=r"price"):
            per_token(wrong)


def test_micro_dollars_are_rounded_half_up() -> None:
    assert [micro(p) for p in (0, MICRO // 2 - 1, MICRO // 2, MICRO, -MICRO)] == [0, 0, 1, 1, -1]
    assert shown(1_234_567 * DOLLAR + 5 * MICRO) == "$1,234,567.000005"
    assert shown(-DOLLAR // 2) == "-$0.500000"


def test_the_tier_reached_last_holds_for_all_tokens() -> None:
    price = Price(input=1, output=2, tiers=(Tier(100, 3, 4), Tier(200, 5, 6)))
    assert [price.at(n).input for n in (0, 100, 101, 200, 201)] == [1, 1, 3, 3, 5]


def test_what_is_free() -> None:
    assert Price().free
    assert not Price(per_second=1).free
    assert not Price(tiers=(Tier(0, 0, 1),)).free


@pytest.mark.parametrize(
    "wrong", [{"input": -1}, {"output": DOLLAR + 1}, {"per_request": -1},
              {"tiers": (Tier(5, 1, 1), Tier(5, 1, 1))}, {"tiers": (Tier(5, 1, 1), Tier(1, 1, 1))}]
)  # fmt: skip
def test_a_price_refuses_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Price(**wrong)  # type: ignore[arg-type]
