"""When a certificate is ordered, and when again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.acme.folder import folder, load_tries, save_tries
from lumen.acme.plan import Standing, Tries, due, failed

DOMAINS = ("box.example", "Other.Example")
HELD = Standing(("box.example", "other.example"), 1000.0, 4000.0, False, "d")
SHARE = st.floats(0, 1)


@given(SHARE)
def test_a_certificate_is_renewed_once_two_thirds_of_its_life_are_over(draw: float) -> None:
    assert 3000.0 <= due(HELD, DOMAINS, draw) <= 3125.0


@pytest.mark.parametrize(
    "standing",
    [
        None,
        Standing(("box.example", "other.example"), 1000.0, 4000.0, True, "d"),
        Standing(("box.example",), 1000.0, 4000.0, False, "d"),
    ],
    ids=["none", "self-signed", "another name"],
)
def test_what_is_no_certificate_for_these_names_is_replaced_at_once(standing: Standing | None) -> None:
    assert due(standing, DOMAINS, 0.5) == 0.0


@given(st.integers(0, 10_000), SHARE, st.floats(0, 1e12))
def test_waits_grow_and_end_at_an_hour(before: int, draw: float, now: float) -> None:
    tries = failed(Tries(before, 5.0, "x"), "why", now, draw)
    assert (tries.failed, tries.why) == (before + 1, "why")
    assert now <= tries.after <= now + min(3600.0, 120.0 * 4.0 ** min(before, 16)) * draw + 1e-3


@given(SHARE, st.floats(1, 1e9))
def test_an_authority_that_says_when_is_believed_up_to_a_week(draw: float, asked: float) -> None:
    after = failed(Tries(), "why", 0.0, draw, asked).after
    assert min(asked, 7 * 86_400.0) <= after <= min(asked, 7 * 86_400.0) + 120.0


def test_tries_are_remembered_for_the_order_they_were_about(tmp_path: Path) -> None:
    tries = Tries(3, 12.5, "no answer")
    save_tries(tmp_path, "a", tries)
    assert load_tries(tmp_path, "a") == tries
    assert load_tries(tmp_path, "b") == Tries()
    save_tries(tmp_path, "a", Tries())
    assert load_tries(tmp_path, "a") == Tries() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"about": "a"}', '{"about": "a", "failed": "x"}', "\x00"])
def test_tries_that_cannot_be_read_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "tries.json").write_text(text)
    assert load_tries(tmp_path, "a") == Tries()


def test_each_directory_has_a_folder_of_its_own(tmp_path: Path) -> None:
    addresses = ("https://acme.example/a", "https://acme.example/b", "https://../x", "https://[::1]:9/d")
    folders = {folder(tmp_path, address) for address in addresses}
    assert len(folders) == len(addresses)
    assert all(one.parent == tmp_path / "acme" and one.name != ".." for one in folders)
