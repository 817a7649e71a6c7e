"""The prefix cache over a memory that keeps tokens instead of KV cells: what it says is reused must really be there."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lumen.workers.llamacpp.prefix import _AHEAD, CLAIM_TAIL, MIN_REUSE, PrefixCache, Shelf, State

SLOTS = 4


class Tape:
    """A KV memory: the tokens each slot holds."""

    def __init__(self, divisible: bool = True) -> None:
        self.held: dict[int, list[int]] = {slot: [] for slot in range(64)}
        self.divisible = divisible
        self.saved = 0

    def cut(self, slot: int, start: int) -> bool:
        if not self.divisible:
            return False
        del self.held[slot][start:]
        return True

    def drop(self, slot: int) -> None:
        self.held[slot] = []

    def copy(self, source: int, target: int, end: int) -> bool:
        assert not self.held[target], "a copy must go to an empty slot"
        assert self.divisible
        self.held[target] = self.held[source][:end]
        return True

    def holds(self, slot: int, end: int) -> bool:
        return len(self.held[slot]) >= end

    def size(self, slot: int) -> int:
        return 8 * len(self.held[slot])

    def save(self, slot: int) -> State | None:
        self.saved += 1
        return np.array(self.held[slot], np.int64).view(np.uint8)

    def clear(self) -> None:
        assert not any(self.held.values()), "clearing would lose what somebody holds"

    def restore(self, slot: int, state: State) -> bool:
        assert not self.held[slot], "a sequence must come back to an empty slot"
        self.held[slot] = state.view(np.int64).tolist()
        return True


def prompt(*blocks: int) -> list[int]:
    return [block * 100 + i for block in blocks for i in range(20)]


class CacheMachine(RuleBasedStateMachine):
    divisible = True
    shelf = 4000

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape(self.divisible)
        self.cache = self.make()
        self.live: dict[int, list[int]] = {}

    def make(self) -> PrefixCache:
        return PrefixCache(self.tape, SLOTS, 60, Shelf(self.shelf), self.divisible)

    @precondition(lambda self: self.cache.available())
    @rule(
        blocks=st.lists(st.integers(0, 2), min_size=1, max_size=5),
        cut=st.integers(0, 19),
        salt=st.sampled_from(["", "x"]),
        reuse=st.booleans(),
    )
    def take(self, blocks: list[int], cut: int, salt: str, reuse: bool) -> None:
        tokens = prompt(*blocks)[: len(blocks) * 20 - cut]
        slot, reused = self.cache.take(tokens, salt, reuse)
        assert slot not in self.live
        assert reused < len(tokens)
        assert reused == 0 or reused >= MIN_REUSE
        assert reuse or reused == 0
        assert self.tape.held[slot] == tokens[:reused]
        self.tape.held[slot] = list(tokens)
        self.live[slot] = tokens
        self.cache.publish(slot, tokens)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), answer=st.lists(st.integers(0, 1), max_size=90))
    def park(self, data: st.DataObject, answer: list[int]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.live)))
        tokens = self.live.pop(slot) + answer
        self.tape.held[slot] = list(tokens)
        self.cache.park(slot, tokens)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.live)))
        del self.live[slot]
        self.cache.release(slot)

    @rule(held=st.sampled_from([b"", b"x"]))
    def nothing(self, held: bytes) -> None:
        """Gives the machine something to do while every slot is live."""

    @rule()
    def evict(self) -> None:
        self.cache.evict()

    @rule()
    def ahead(self) -> None:
        held = {slot: list(tokens) for slot, tokens in self.tape.held.items()}
        self.cache.ahead()
        assert self.tape.held == held

    @invariant()
    def live_slots_keep_their_tokens(self) -> None:
        for slot, tokens in self.live.items():
            assert self.tape.held[slot] == tokens

    @invariant()
    def slots_are_never_lost(self) -> None:
        assert self.cache.available() == (len(self.live) < SLOTS)


class RecurrentMachine(CacheMachine):
    divisible = False


TestCache = CacheMachine.TestCase
TestRecurrent = RecurrentMachine.TestCase
TestCache.settings = TestRecurrent.settings = settings(max_examples=60, stateful_step_count=30)


class NoShelfMachine(CacheMachine):
    shelf = 0


TestNoShelf = NoShelfMachine.TestCase
TestNoShelf.settings = TestCache.settings


def parked(tokens: list[int], slots: int = SLOTS, divisible: bool = True) -> tuple[Tape, PrefixCache]:
    tape = Tape(divisible)
    cache = PrefixCache(tape, slots, 10_000, Shelf(1 << 20), divisible)
    slot, _ = cache.take(tokens, "")
    tape.held[slot] = list(tokens)
    cache.park(slot, list(tokens))
    return tape, cache


def test_the_next_turn_of_a_chat_takes_its_sequence_over() -> None:
    _tape, cache = parked(prompt(1, 2))
    slot, reused = cache.take(prompt(1, 2, 3), "")
    assert reused == 40
    assert cache.match(prompt(1, 2, 3), "") == 40
    cache.release(slot)
    assert cache.match(prompt(1, 2), "") == 0


def test_a_shared_beginning_is_branched_and_the_long_tail_kept() -> None:
    tape, cache = parked(prompt(1, *range(2, 3 + CLAIM_TAIL // 20 + 1)))
    slot, reused = cache.take(prompt(1, 9), "")
    assert reused == 20
    assert sum(bool(held) for held in tape.held.values()) == 2
    cache.release(slot)
    assert cache.match(prompt(1, 2, 3), "") == 59


def test_the_same_prompt_again_leaves_one_token_to_decode() -> None:
    _tape, cache = parked(prompt(1, 2))
    assert cache.take(prompt(1, 2), "")[1] == 39


def test_another_salt_sees_nothing() -> None:
    _tape, cache = parked(prompt(1, 2))
    assert cache.take(prompt(1, 2, 3), "somebody else")[1] == 0


def test_a_recurrent_model_goes_on_only_from_the_very_end() -> None:
    _tape, cache = parked(prompt(1, 2), divisible=False)
    assert cache.take(prompt(1, 9), "")[1] == 0
    assert cache.take(prompt(1, 2, 3), "")[1] == 40


def test_with_one_slot_the_parked_sequence_itself_is_cut_back() -> None:
    _tape, cache = parked(prompt(*range(1, 9)), slots=1)
    assert cache.take(prompt(1, 2, 99), "") == (0, 40)


def test_a_finished_answer_leaves_the_cells_when_another_runs_and_comes_back_from_the_shelf() -> None:
    tape = Tape()
    cache = PrefixCache(tape, SLOTS, 0, Shelf(1 << 20))
    first, _ = cache.take(prompt(1, 2), "")
    tape.held[first] = prompt(1, 2)
    cache.park(first, prompt(1, 2))
    assert cache.parked_cells == 40
    other, _ = cache.take(prompt(7), "")
    assert cache.parked_cells == 0
    assert tape.held[first] == [] or first == other
    again, reused = cache.take(prompt(1, 3), "")
    assert reused == 20
    assert tape.held[again] == prompt(1)


def test_the_shelf_is_bounded_and_keeps_what_was_used_last() -> None:
    shelf = Shelf(100)
    state = np.zeros(40, np.uint8)
    a, _ = shelf.add([1], "", state)
    b, _ = shelf.add([2], "", state)
    assert a is not None and b is not None
    shelf.get(a)
    _c, gone = shelf.add([3], "", state)
    assert gone == [b]
    assert shelf.size == 80
    assert shelf.add([4], "", np.zeros(101, np.uint8)) == (None, [])
    _longer, gone = shelf.add([1, 5], "", state)
    assert gone == [a]
    assert shelf.size == 80


def test_what_was_copied_while_nobody_waited_is_not_copied_again() -> None:
    tape, cache = parked(prompt(1, 2))
    assert cache.ahead()
    assert not cache.ahead()
    assert tape.saved == 1
    assert [tokens for tokens, _salt, _fetch in cache.kept()] == [prompt(1, 2)]
    slot, reused = cache.take(prompt(5), "")
    assert (reused, tape.saved) == (0, 1)
    cache.release(slot)
    slot, reused = cache.take(prompt(1, 2, 3), "")
    assert (reused, tape.held[slot]) == (40, prompt(1, 2))


def test_what_has_changed_since_it_was_copied_is_copied_again() -> None:
    tape, cache = parked(prompt(1, 2))
    assert cache.ahead()
    slot, reused = cache.take(prompt(1, 2, 3), "")
    assert reused == 40
    tape.held[slot] = prompt(1, 2, 3)
    cache.park(slot, prompt(1, 2, 3))
    assert cache.ahead()
    assert tape.saved == 2
    assert [tokens for tokens, _salt, _fetch in cache.kept()] == [prompt(1, 2, 3)]


def test_what_is_long_to_copy_waits_until_it_must_be() -> None:
    tape, cache = parked(list(range(_AHEAD // 8 + 1)))
    assert not cache.ahead()
    assert tape.saved == 0
