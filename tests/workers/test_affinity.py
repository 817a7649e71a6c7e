"""Which replica a prompt goes to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumen.workers.affinity import BLOCK, BOUND, MOST_BLOCKS, Affinity, Block, Busy, blocks

SYSTEM = ("system", "You are a helpful assistant. " * 40)


def idle(*keys: int, slots: int = 8) -> list[Busy]:
    return [Busy(key, 0, slots) for key in keys]


def test_equal_beginnings_have_equal_blocks_and_nothing_else_has() -> None:
    first = blocks([SYSTEM, ("user", "What is Lumen?")])
    longer = blocks([SYSTEM, ("user", "What is Lumen?"), ("assistant", "A gateway."), ("user", "Thanks")])
    other = blocks([SYSTEM, ("user", "What is lumen?"), ("assistant", "A gateway.")])
    assert longer[: len(first)] == first
    assert [a == b for a, b in zip(first, other, strict=False)] == [True, True, False]
    assert other[-1].hash != longer[len(other) - 1].hash  # the same answer after another question
    assert blocks([("user", "a"), ("user", "b")]) != blocks([("user", "ab")])
    assert blocks([]) == []


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=3 * BLOCK)), max_size=5), st.text())
def test_a_prompt_that_goes_on_begins_with_the_blocks_it_had(parts: list[tuple[str, str]], more: str) -> None:
    before, after = blocks(parts), blocks([*parts, ("user", more)])
    assert after[: len(before)] == before
    assert len(after) <= MOST_BLOCKS
    assert [b.size for b in after] == sorted(b.size for b in after)


def test_a_conversation_stays_where_it_began() -> None:
    affinity, replicas = Affinity(), idle(11, 12, 13)
    for talk in range(20):
        parts = [("user", f"question {talk} " * 30)]
        at = affinity.choose(blocks(parts), replicas)
        for turn in range(5):
            parts += [("assistant", "answer " * 20), ("user", f"and {turn}? " * 20)]
            assert affinity.choose(blocks(parts), replicas) == at


def test_prompts_of_their_own_spread_evenly_and_few_move_when_one_goes() -> None:
    prompts = [blocks([("user", f"{n} is the number " * 20)]) for n in range(3000)]
    three = [Affinity().choose(prompt, idle(1, 2, 3)) + 1 for prompt in prompts]
    assert all(900 < count < 1100 for count in Counter(three).values())
    two = [(1, 3)[Affinity().choose(prompt, idle(1, 3))] for prompt in prompts]
    assert all(a == b for a, b in zip(three, two, strict=True) if a != 2)


def test_a_short_beginning_is_not_worth_crowding_for() -> None:
    affinity, replicas = Affinity(), idle(1, 2)
    seen = Counter(
        affinity.choose(blocks([("system", "Be brief."), ("user", f"{n} " * 200)]), replicas) for n in range(200)
    )
    assert min(seen.values()) > 60


def test_a_beginning_that_is_most_of_it_is_followed_until_the_load_is_too_much() -> None:
    affinity = Affinity()
    loads = [0, 0]
    for n in range(16):
        prompt = blocks([SYSTEM, ("user", f"{n}?")])
        at = affinity.choose(prompt, [Busy(key, count, 8) for key, count in enumerate(loads)])
        loads[at] += 1
        assert loads[at] <= max(2, BOUND * sum(loads) / 2 + 1)
    assert min(loads) >= 3


def test_a_new_start_of_a_replica_knows_nothing() -> None:
    affinity = Affinity()
    prompt = blocks([SYSTEM])
    at = affinity.choose(prompt, idle(1, 2))
    key = (1, 2)[at]
    affinity.forget(key)
    assert affinity._holders == {}
    assert affinity.choose(prompt, idle(7, 8)) in (0, 1)


def test_what_is_remembered_is_bounded_and_the_oldest_goes() -> None:
    affinity = Affinity(remembered=50)
    for n in range(500):
        affinity.choose([Block(n, 10)], idle(1, 2))
    assert list(affinity._holders) == list(range(450, 500))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 16)), min_size=1, max_size=6),
    st.lists(st.integers(0, 20), max_size=6),
    st.integers(0, 5),
)
def test_no_replica_takes_more_than_its_share(loads: list[tuple[int, int]], hashes: list[int], before: int) -> None:
    replicas = [Busy(key, count, slots) for key, (count, slots) in enumerate(loads)]
    prompt = [Block(one, (n + 1) * 100) for n, one in enumerate(hashes)]
    affinity = Affinity()
    for _ in range(before):
        affinity.choose(prompt, replicas)
    at = affinity.choose(prompt, replicas)
    total, slots = sum(one.in_flight for one in replicas) + 1, sum(max(one.slots, 1) for one in replicas)
    fair = BOUND * total * max(replicas[at].slots, 1) / slots
    assert replicas[at].in_flight < max(fair + 1, 2)


@pytest.mark.parametrize("busy", [0, 1])
def test_without_a_prompt_the_less_busy_one(busy: int) -> None:
    replicas = [Busy(1, 3 if busy == 0 else 0, 8), Busy(2, 3 if busy == 1 else 0, 8)]
    assert Affinity().choose([], replicas) == 1 - busy
