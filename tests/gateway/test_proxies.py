"""Whom to believe about where a request comes from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.gateway.proxies import Proxies, address

PROXIES = Proxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.2.2.2", "10.3.3.3"], "203.0.113.9"),
        ("10.0.0.1", ["10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ['"[2001:db8::1]:4711"'], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        (None, ["203.0.113.9"], None),
    ],
)
def test_the_client_is_the_last_one_that_no_proxy_vouches_for(
    peer: str | None, forwarded: list[str], client: str | None
) -> None:
    assert PROXIES.client(peer, forwarded) == client


@pytest.mark.parametrize(
    ("peer", "tls", "proto", "secure"),
    [
        ("198.51.100.1", False, ["https"], False),
        ("198.51.100.1", True, ["http"], True),
        ("10.0.0.1", False, ["https"], True),
        ("10.0.0.1", False, ["http"], False),
        ("10.0.0.1", True, ["http"], False),
        ("10.0.0.1", False, ["https, http"], False),
        ("10.0.0.1", False, ["https", "http"], False),
        ("10.0.0.1", True, [], True),
        ("10.0.0.1", False, [], False),
        (None, False, ["https"], False),
    ],
)
def test_only_a_trusted_proxy_says_that_its_client_came_over_tls(
    peer: str | None, tls: bool, proto: list[str], secure: bool
) -> None:
    assert PROXIES.secure(peer, tls, proto) is secure


@given(st.ip_addresses(), st.lists(st.text(max_size=30), max_size=5))
def test_who_is_not_trusted_cannot_name_another(peer: object, forwarded: list[str]) -> None:
    assert Proxies().client(str(peer), forwarded) == str(address(str(peer)))


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=60))
def test_what_a_client_claims_before_it_counts_for_nothing(claimed: list[str]) -> None:
    told = [", ".join([*claimed, "203.0.113.9"])]
    assert PROXIES.client("10.0.0.1", told) == "203.0.113.9"


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = address(text)
    assert found is None or ip_address(str(found)) == found
