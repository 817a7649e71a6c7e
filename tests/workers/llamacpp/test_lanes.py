"""The prefix cache over lanes: the promises of the shared one, and live lanes that stand together."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from lumen.workers.llamacpp.lanes import LaneCache
from lumen.workers.llamacpp.prefix import CLAIM_TAIL, PrefixCache, Shelf
from tests.workers.llamacpp.test_prefix import SLOTS, CacheMachine, Tape, prompt


class LaneMachine(CacheMachine):
    def make(self) -> PrefixCache:
        return LaneCache(self.tape, SLOTS, 0, Shelf(self.shelf), self.divisible)

    @rule()
    def close_ranks(self) -> None:
        before = sorted(self.live)
        move = self.cache.close_ranks()
        assert (move is None) == (before == list(range(len(before))))
        if move is not None:
            source, target = move
            assert source == before[-1]
            assert target < source
            assert target not in self.live
            self.live[target] = self.live.pop(source)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def branch(self, data: st.DataObject) -> None:
        """What a live lane has published, another lane can begin with."""
        slot = data.draw(st.sampled_from(sorted(self.live)))
        tokens = self.live[slot]
        if self.cache.available() and len(tokens) > 20:
            held = self.cache.match([*tokens, 1], "")
            other, reused = self.cache.take([*tokens, 1], "")
            assert reused >= held
            assert self.tape.held[other] == tokens[:reused]
            self.cache.release(other)

    @invariant()
    def a_new_one_gets_the_lowest_lane(self) -> None:
        if self.cache.available():
            slot, _reused = self.cache.take([7, 8, 9], "nobody else's")
            assert slot == next(lane for lane in range(SLOTS) if lane not in self.live)
            self.cache.release(slot)


TestLanes = LaneMachine.TestCase
TestLanes.settings = settings(max_examples=60, stateful_step_count=30)


class NoShelfLaneMachine(LaneMachine):
    shelf = 0


TestLanesWithoutShelf = NoShelfLaneMachine.TestCase
TestLanesWithoutShelf.settings = TestLanes.settings


def cache() -> tuple[Tape, LaneCache]:
    tape = Tape()
    return tape, LaneCache(tape, SLOTS, 0, Shelf(1 << 20))


def run(tape: Tape, lanes: LaneCache, tokens: list[int]) -> tuple[int, int]:
    slot, reused = lanes.take(tokens, "")
    tape.held[slot] = list(tokens)
    lanes.publish(slot, tokens)
    return slot, reused


def test_a_parked_answer_stays_in_its_lane_while_others_run() -> None:
    tape, lanes = cache()
    assert run(tape, lanes, prompt(1)) == (0, 0)
    assert run(tape, lanes, prompt(2)) == (1, 0)
    lanes.park(0, prompt(1))
    assert lanes.parked_cells == 20
    assert run(tape, lanes, prompt(1, 3)) == (0, 20)


def test_the_next_turn_moves_to_the_lowest_lane_and_frees_its_old_one() -> None:
    tape, lanes = cache()
    run(tape, lanes, prompt(1))
    run(tape, lanes, prompt(2))
    lanes.park(1, prompt(2))
    lanes.park(0, prompt(1))
    assert run(tape, lanes, prompt(2, 3)) == (0, 20)
    assert tape.held[1] == []
    assert run(tape, lanes, prompt(1, 3)) == (1, 20)  # from the shelf


def test_a_long_tail_that_is_cut_off_can_still_be_had() -> None:
    tape, lanes = cache()
    long = prompt(1, *range(2, 3 + CLAIM_TAIL // 20 + 1))
    run(tape, lanes, long)
    lanes.park(0, long)
    assert run(tape, lanes, prompt(1, 9)) == (0, 20)
    assert run(tape, lanes, [*long, 5]) == (1, len(long))


def test_a_gap_is_closed_by_the_last_one() -> None:
    tape, lanes = cache()
    for block in (1, 2, 3):
        run(tape, lanes, prompt(block))
    lanes.park(0, prompt(1))
    assert lanes.ragged
    assert lanes.close_ranks() == (2, 0)
    assert tape.held[0] == prompt(3)
    assert not lanes.ragged
    assert lanes.match(prompt(3, 4), "") == 20
    assert lanes.match(prompt(1, 4), "") == 20  # on the shelf now


def test_only_the_lane_that_the_next_one_gets_is_copied_beforehand() -> None:
    tape, lanes = cache()
    run(tape, lanes, prompt(1))
    run(tape, lanes, prompt(2))
    lanes.park(1, prompt(2))
    lanes.park(0, prompt(1))
    saved = tape.saved
    assert lanes.ahead()
    assert not lanes.ahead()
    assert tape.saved == saved + 1
    assert run(tape, lanes, prompt(3)) == (0, 0)
    assert tape.saved == saved + 1
    assert run(tape, lanes, prompt(1, 3)) == (1, 20)  # from the shelf
