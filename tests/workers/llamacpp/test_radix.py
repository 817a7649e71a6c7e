"""The radix tree against a dictionary that compares everything with everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lumen.workers.llamacpp.radix import RadixTree, common_prefix

tokens = st.lists(st.integers(0, 2), max_size=12)
holders = st.integers(0, 5)
salts = st.sampled_from(["", "a"])


@given(st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40), st.integers(0, 5))
def test_common_prefix(a: list[int], b: list[int], start: int) -> None:
    start = min(start, len(a))
    want = 0
    while want < min(len(a) - start, len(b)) and a[start + want] == b[want]:
        want += 1
    assert common_prefix(a, b, start) == want


class AgainstADictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.plain: dict[int, tuple[list[int], str]] = {}

    @rule(holder=holders, sequence=tokens, salt=salts)
    def insert(self, holder: int, sequence: list[int], salt: str) -> None:
        self.tree.insert(holder, sequence, salt)
        self.plain[holder] = (sequence, salt)

    @rule(holder=holders, more=tokens)
    def extend(self, holder: int, more: list[int]) -> None:
        if holder in self.plain:
            sequence, salt = self.plain[holder]
            self.insert(holder, sequence + more, salt)

    @rule(holder=holders)
    def remove(self, holder: int) -> None:
        self.tree.remove(holder)
        self.plain.pop(holder, None)

    @rule(query=tokens, salt=salts)
    def match(self, query: list[int], salt: str) -> None:
        lengths = {h: common_prefix(s, query) for h, (s, own) in self.plain.items() if own == salt}
        best = max(lengths.values(), default=0)
        found, who = self.tree.match(query, salt)
        assert found == best
        assert who == (frozenset(h for h, n in lengths.items() if n == best) if best else frozenset())

    @invariant()
    def holders_and_size_agree(self) -> None:
        assert all(holder in self.tree for holder in self.plain)
        distinct = {(salt, *sequence[: i + 1]) for sequence, salt in self.plain.values() for i in range(len(sequence))}
        assert self.tree.size == len(distinct)


TestAgainstADictionary = AgainstADictionary.TestCase


def test_splits_do_not_outlive_their_cause() -> None:
    tree = RadixTree()
    tree.insert(0, list(range(1000)))
    for i in range(1, 1000):
        tree.insert(1, [*range(i), -1])
        tree.remove(1)
    depth, node = 0, tree._roots[""]
    while node.children:
        (node,) = node.children.values()
        depth += 1
    assert depth == 1
    assert tree.match(list(range(1000))) == (1000, frozenset({0}))
