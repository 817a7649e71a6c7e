from __future__ import annotations

import pytest

from lumen.hardware.devices import Device
from lumen.workers.memory import Ledger, Shortage, Stage

GIB = 1024**3
CARD = Device("cuda:0", "cuda", 0, "A card", 24 * GIB)
OTHER = Device("cuda:1", "cuda", 1, "A card", 24 * GIB)
MEMORY = Device("ram", "ram", 0, "Memory", 64 * GIB)


def ledger() -> Ledger:
    return Ledger([CARD, OTHER, MEMORY], margins=dict.fromkeys(["cuda:0", "cuda:1", "ram"], GIB))


def load(books: Ledger, owner: str, **wants: int) -> None:
    sizes = {name.replace("_", ":"): size * GIB for name, size in wants.items()}
    assert books.reserve(owner, sizes) is None
    assert books.start(owner)
    books.measured(owner, sizes)


def short(found: Shortage | None) -> Shortage:
    assert found is not None
    return found


def test_all_or_nothing() -> None:
    books = ledger()
    load(books, "a", cuda_0=20)
    found = short(books.reserve("b", {"cuda:0": 5 * GIB, "cuda:1": 5 * GIB}))
    assert found.missing == {"cuda:0": 2 * GIB} and not found.soon and not found.hopeless
    assert [one.owner for one in found.candidates] == ["a"]
    assert books.holding("b") is None and books.free("cuda:1") == 23 * GIB
    assert short(books.reserve("b", {"cuda:0": 24 * GIB})).hopeless


def test_who_can_be_asked_to_go() -> None:
    books = ledger()
    load(books, "here", cuda_0=6)
    load(books, "elsewhere", cuda_1=6)
    load(books, "pinned", cuda_0=6)
    books.pin("pinned", True)
    assert books.reserve("loading", {"cuda:0": 6 * GIB}) is None
    assert [one.owner for one in short(books.reserve("new", {"cuda:0": 6 * GIB})).candidates] == ["here"]
    books.pin("pinned", False)
    assert [one.owner for one in short(books.reserve("new", {"cuda:0": 6 * GIB})).candidates] == ["here", "pinned"]


def test_what_is_let_go_is_not_given_again_before_it_is_seen_back() -> None:
    books = ledger()
    load(books, "a", cuda_0=20)
    books.release("a")
    found = short(books.reserve("b", {"cuda:0": 10 * GIB}))
    assert found.soon and found.candidates == () and found.returning == {"cuda:0": 20 * GIB}
    books.seen("cuda:0", 12 * GIB, {"a": 12 * GIB})  # half way
    assert short(books.reserve("b", {"cuda:0": 16 * GIB})).returning == {"cuda:0": 12 * GIB}
    assert books.reserve("c", {"cuda:0": 11 * GIB}) is None
    books.seen("cuda:0", 24 * GIB, {})
    assert books.holding("a") is None
    assert books.reserve("b", {"cuda:0": 12 * GIB}) is None


def test_a_reading_older_than_the_release_proves_nothing() -> None:
    for told in (True, False):
        books = ledger()
        epoch = books.epoch  # the reading begins before the process is there
        load(books, "a", cuda_0=20)
        books.release("a")
        books.seen("cuda:0", 24 * GIB, {} if told else None, epoch=epoch)
        assert books.free("cuda:0") == 3 * GIB
        books.seen("cuda:0", 24 * GIB, {} if told else None)
        assert books.free("cuda:0") == 23 * GIB


def test_a_reading_older_than_a_load_hides_no_stranger() -> None:
    books = ledger()
    epoch = books.epoch
    load(books, "a", cuda_0=8)
    books.seen("cuda:0", 16 * GIB, None, epoch=epoch)  # eight are in use, none of them by `a` yet
    assert books.free("cuda:0") == (24 - 1 - 8 - 8) * GIB


def test_what_never_had_a_process_is_free_at_once() -> None:
    books = ledger()
    assert books.reserve("a", {"cuda:0": 20 * GIB}) is None
    books.release("a")
    assert books.holding("a") is None and books.free("cuda:0") == 23 * GIB
    books.release("a")
    books.forget("a")


def test_memory_that_a_vanished_process_left_taken_is_somebody_else_s() -> None:
    books = ledger()
    load(books, "a", cuda_0=20)
    books.release("a")
    books.forget("a")
    books.seen("cuda:0", 10 * GIB, {})
    (card, *_) = books.standing()
    assert (card.foreign, card.returning, card.free) == (14 * GIB, 0, 9 * GIB)
    load(books, "b", cuda_0=1)
    books.forget("b")  # only of what was released
    assert books.holding("b") is not None


def test_strangers_are_respected() -> None:
    books = ledger()
    load(books, "a", cuda_0=4)
    books.seen("cuda:0", 10 * GIB, {"a": 4 * GIB})
    (card, *_) = books.standing()
    assert card.foreign == 10 * GIB and card.free == 9 * GIB
    books.seen("cuda:0", 0, {"a": 4 * GIB})
    (card, *_) = books.standing()
    assert card.free < 0 and card.pressure == GIB
    # Under pressure nothing grows, but what shrinks or stays may.
    assert short(books.reserve("a", {"cuda:0": 5 * GIB})).missing == {"cuda:0": 2 * GIB}
    assert books.reserve("a", {"cuda:0": 3 * GIB}) is None


def test_an_owner_that_takes_more_than_it_was_given_leaves_less() -> None:
    books = ledger()
    load(books, "a", cuda_0=4)
    books.seen("cuda:0", 18 * GIB, {"a": 6 * GIB})
    assert books.free("cuda:0") == (24 - 1 - 6) * GIB
    books.measured("a", {"cuda:0": 6 * GIB})
    books.seen("cuda:0", 18 * GIB, {"a": 6 * GIB})
    (card, *_) = books.standing()
    assert (card.charged, card.foreign) == (6 * GIB, 0)


def test_without_the_driver_s_word_on_processes() -> None:
    books = ledger()
    books.seen("cuda:0", 22 * GIB, None)  # a stranger's two
    load(books, "a", cuda_0=6)
    assert books.reserve("b", {"cuda:0": 8 * GIB}) is None
    assert books.start("b")
    books.seen("cuda:0", 11 * GIB, None)  # 2 + 6 + the five that b has loaded so far
    assert books.standing()[0].foreign == 2 * GIB
    books.measured("b", {"cuda:0": 8 * GIB})
    books.seen("cuda:0", 8 * GIB, None)
    assert books.standing()[0].foreign == 2 * GIB
    books.release("a")
    books.seen("cuda:0", 11 * GIB, None)  # three of a's six are back
    (card, *_) = books.standing()
    assert (card.returning, card.foreign, card.charged) == (3 * GIB, 2 * GIB, 8 * GIB)
    books.seen("cuda:0", 14 * GIB, None)
    (card, *_) = books.standing()
    assert (card.returning, card.foreign) == (0, 2 * GIB)


def test_asleep_and_awake_again() -> None:
    books = ledger()
    load(books, "a", cuda_0=20, ram=2)
    assert books.reserve("a", {"cuda:0": GIB, "ram": 18 * GIB}) is None
    assert short(books.reserve("b", {"cuda:0": 10 * GIB})).soon
    books.seen("cuda:0", 23 * GIB, {"a": GIB})
    load(books, "b", cuda_0=10)
    found = short(books.reserve("a", {"cuda:0": 20 * GIB, "ram": 2 * GIB}))
    assert found.missing == {"cuda:0": 7 * GIB} and [one.owner for one in found.candidates] == ["b"]
    held = books.holding("a")
    assert held is not None and held.charged == {"cuda:0": GIB, "ram": 18 * GIB} and held.stage is Stage.HELD


def test_what_is_set_aside_is_never_lent() -> None:
    books = ledger()
    books.earmark({"model:a": {"cuda:0": 10 * GIB}, "route:fast": {"cuda:0": 4 * GIB}})
    assert short(books.reserve("b", {"cuda:0": 10 * GIB})).missing == {"cuda:0": GIB}
    assert books.reserve("b", {"cuda:0": 9 * GIB}) is None
    assert short(books.reserve("a", {"cuda:0": 10 * GIB})).missing == {"cuda:0": 10 * GIB}
    assert books.reserve("a", {"cuda:0": 12 * GIB}, draws=["model:a", "route:fast"]) is None
    (card, *_) = books.standing()
    assert card.set_aside == 2 * GIB and card.free == 0
    assert books.start("a")
    books.measured("a", {})
    # Its going would give back what is set aside for it, and that helps nobody else.
    assert short(books.reserve("c", {"cuda:0": GIB})).candidates == ()
    assert [one.owner for one in short(books.reserve("c", {"cuda:0": 13 * GIB}, draws=["model:a"])).candidates] == ["a"]
    books.release("a")
    books.seen("cuda:0", 24 * GIB, {})
    books.earmark({})
    assert books.reserve("c", {"cuda:0": 14 * GIB}) is None


def test_a_claim_is_used_up_only_by_what_draws_on_it() -> None:
    books = ledger()
    books.earmark({"model:a": {"cuda:0": 8 * GIB}})
    assert books.reserve("a:0", {"cuda:0": 6 * GIB}, draws=["model:a"]) is None
    assert books.reserve("a:1", {"cuda:0": 6 * GIB}, draws=["model:a"]) is None  # two of the claim, four beside it
    assert books.standing()[0].set_aside == 0
    assert books.free("cuda:0") == 11 * GIB


def test_starts_on_a_card_take_turns() -> None:
    books = ledger()
    for owner, wants in {
        "a": ["cuda:0"],
        "b": ["cuda:0", "cuda:1"],
        "c": ["cuda:1"],
        "d": ["ram"],
        "e": ["ram"],
    }.items():
        assert books.reserve(owner, dict.fromkeys(wants, GIB)) is None
    assert books.start("a") and books.start("a")
    assert not books.start("b") and not books.may_start(["cuda:0"])
    assert books.start("c") and books.start("d") and books.start("e")
    books.measured("a", {"cuda:0": GIB})
    assert not books.start("b")
    books.release("c")
    assert books.start("b")
    with pytest.raises(LookupError):
        books.start("c")


def test_who_loads_and_is_given_another_card_has_no_turn_there() -> None:
    books = ledger()
    assert books.reserve("a", {"ram": GIB}) is None and books.start("a")
    assert books.reserve("b", {"cuda:0": GIB}) is None and books.start("b")
    assert books.reserve("a", {"ram": GIB, "cuda:0": GIB}) is None
    assert not books.start("a")
    books.measured("b", {})
    assert books.start("a")


def test_questions_about_nothing() -> None:
    books = ledger()
    with pytest.raises(LookupError, match="no device 'cuda:7'"):
        books.reserve("a", {"cuda:7": 1})
    with pytest.raises(LookupError):
        books.earmark({"model:a": {"cuda:7": 1}})
    with pytest.raises(ValueError, match="negative"):
        books.reserve("a", {"ram": -1})
    with pytest.raises(LookupError):
        books.measured("a", {})
    books.pin("a", True)
    assert books.holdings() == ()


def test_margins_of_their_own() -> None:
    books = Ledger([CARD, MEMORY])
    assert CARD.margin < GIB < MEMORY.margin
    assert books.free("ram") == MEMORY.total - MEMORY.margin


def test_giving_back_twice_before_anybody_looks() -> None:
    books = ledger()
    load(books, "a", cuda_0=20)
    assert books.reserve("a", {"cuda:0": 10 * GIB}) is None
    assert books.reserve("a", {"cuda:0": 5 * GIB}) is None
    assert books.standing()[0].returning == 15 * GIB and books.free("cuda:0") == 3 * GIB
    assert short(books.reserve("a", {"cuda:0": 20 * GIB})).soon
