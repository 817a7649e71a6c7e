"""The files of the built-in model as they ship."""

from __future__ import annotations

import hashlib

from lumen import tiny

LIMIT = 8_000_000


def test_files_are_those_released() -> None:
    stated = tiny.digests()
    assert set(stated) == {tiny.MODEL.name, tiny.DRAFT.name}
    for path in (tiny.MODEL, tiny.DRAFT):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == stated[path.name]


def test_both_files_together_stay_small() -> None:
    main, draft = tiny.MODEL.stat().st_size, tiny.DRAFT.stat().st_size
    assert main + draft <= LIMIT
    assert 4 <= main / draft <= 8


def test_model_card_names_both_files_and_the_limits() -> None:
    card = tiny.MODEL.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    for words in (tiny.MODEL.name, tiny.DRAFT.name, "Apache-2.0", "cannot"):
        assert words in card
