from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.core.meter import (
    Seen,
    Tokens,
    bill,
    ceiling_needed,
    input_bound,
    meets,
    output_within,
    worst,
)
from lumen.core.money import DOLLAR, MICRO, MOST, Price, Tier, per_token

PRICE = Price(input=per_token("0.0375"), output=per_token("0.15"), cached_input=per_token("0.01"), cache_write=50_000)

rates = st.integers(0, 10**9)
prices = st.builds(
    Price,
    input=rates,
    output=rates,
    cached_input=st.none() | rates,
    cache_write=st.none() | rates,
    per_request=rates,
    per_second=rates,
    tiers=st.sampled_from([(), (Tier(100, 5, 7),), (Tier(10, 900, 1), Tier(200, 3, 10**9, 4, 5))]),
)
counts = st.integers(0, 10_000)


def test_costs_are_exact() -> None:
    told = Tokens(input=1001, output=7, cached=1, cache_write=0)
    made = bill(PRICE, told, Seen())
    assert made.cost == 1000 * 37_500 + 1 * 10_000 + 7 * 150_000
    assert not made.estimated


def test_cached_and_written_tokens_are_part_of_the_input() -> None:
    assert bill(PRICE, Tokens(10, 0, cached=4, cache_write=6), Seen()).cost == 4 * 10_000 + 6 * 50_000
    # A target that counts more of them than there is input is billed its input at most once.
    assert bill(PRICE, Tokens(10, 0, cached=40, cache_write=6), Seen()).cost == 10 * 10_000


def test_without_prices_of_their_own_they_cost_what_input_costs() -> None:
    assert bill(Price(input=3), Tokens(10, 0, cached=4, cache_write=5), Seen()).cost == 30


def test_reasoning_is_part_of_the_output() -> None:
    assert bill(Price(output=2), Tokens(0, 10, reasoning=8), Seen()).cost == 20


def test_zero_is_not_missing() -> None:
    seen = Seen(input_bytes=401, output_bytes=41, pieces=3)
    assert bill(Price(input=1, output=1), Tokens(0, 0), seen).cost == 0
    assert not bill(Price(input=1, output=1), Tokens(0, 0), seen).estimated
    missing = bill(Price(input=1, output=1000), None, seen)
    assert (missing.tokens.input, missing.tokens.output, missing.estimated) == (101, 11, True)
    half = bill(Price(input=1, output=1000), Tokens(input=5), seen)
    assert (half.cost, half.estimated) == (5 + 11_000, True)


def test_what_was_counted_by_id_or_by_event_counts_when_it_is_more() -> None:
    assert bill(Price(output=1), Tokens(0), Seen(output_bytes=8, token_ids=9, pieces=3)).cost == 9
    assert bill(Price(output=1), Tokens(0), Seen(output_bytes=8, token_ids=0, pieces=30)).cost == 30


@pytest.mark.parametrize("absurd", [-1, 10**9 + 1])
def test_an_absurd_count_is_not_believed(absurd: int) -> None:
    made = bill(Price(input=1, output=1), Tokens(absurd, absurd, cached=absurd), Seen(input_bytes=8, pieces=2))
    assert (made.tokens.input, made.tokens.output, made.estimated) == (2, 2, True)


def test_a_second_is_rounded_up_to_a_pico_dollar() -> None:
    assert bill(Price(per_second=1), Tokens(0, 0), Seen(), micros=1).cost == 1
    assert bill(Price(per_second=DOLLAR), Tokens(0, 0), Seen(), micros=1_500_000).cost == DOLLAR * 3 // 2
    assert bill(Price(per_request=MICRO), Tokens(0, 0), Seen()).cost == MICRO


def test_no_cost_is_beyond_what_the_ledger_can_keep() -> None:
    assert bill(Price(output=DOLLAR), Tokens(0, 10**9), Seen()).cost == MOST
    assert worst(Price(output=DOLLAR), 0, 10**12) == MOST


@given(prices, counts, counts, counts, counts, counts, counts, st.integers(0, 10**7))
def test_the_worst_case_is_never_less_than_the_bill(
    price: Price, used: int, more: int, out: int, more_out: int, cached: int, written: int, micros: int
) -> None:
    made = bill(price, Tokens(used, out, cached, written), Seen(), micros)
    assert made.cost <= worst(price, used + more, out + more_out, micros)


@given(prices, st.integers(0, 10**13), counts, st.integers(0, 10**6))
def test_the_output_that_fits_is_the_most_that_fits(price: Price, amount: int, used: int, micros: int) -> None:
    most = output_within(price, amount, used, micros)
    if most is None:
        assert worst(price, used, 10**6, micros) == worst(price, used, 0, micros) <= amount
    elif most < 0:
        assert worst(price, used, 0, micros) > amount
    else:
        assert worst(price, used, most, micros) <= amount < worst(price, used, most + 1, micros)


@given(st.text(max_size=200))
def test_no_byte_level_vocabulary_makes_more_tokens_than_the_bound(text: str) -> None:
    assert len(text.encode()) + 256 <= input_bound(len(text.encode()))


def test_what_text_does_not_bound_is_added_and_a_window_bounds_all() -> None:
    assert input_bound(100) == 356
    assert input_bound(100, tools=True) == 356 + 1024
    assert input_bound(100, images=2) == 356 + 100_000
    assert input_bound(100, images=2, opaque=1, context=8192) == 8192
    assert input_bound(100, context=8192) == 356


def test_a_price_ceiling_is_met_by_every_token() -> None:
    tiered = Price(input=1, output=2, tiers=(Tier(100, 3, 9),))
    assert ceiling_needed(tiered) == 9
    assert meets(tiered, 9)
    assert not meets(tiered, 8)
    assert not meets(Price(input=1, cached_input=10), 9)
    assert not meets(None, 10**12)
