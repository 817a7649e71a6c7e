"""PURE: a radix tree over token sequences: which holder shares the longest prefix with a new one?

Holders are small integers (sequence ids of the KV cache). Sequences under different salts never meet: each
salt has its own root.
"""

from __future__ import annotations

from collections.abc import Sequence


class _Node:
    """`edge`: the tokens that lead here from the parent. `holders`: everyone whose sequence runs through or
    ends here.
    """

    __slots__ = ("children", "edge", "holders", "parent")

    def __init__(self, edge: list[int], parent: _Node | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.holders: set[int] = set()


def common_prefix(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """Length of the longest common prefix of `a[start:]` and `b`."""
    end = min(len(a) - start, len(b))
    # Slices compare in C: halve the range until the first difference is found instead of walking it in
    # Python.
    if a[start : start + end] == b[:end]:
        return end
    low, high = 0, end
    while high - low > 1:
        middle = (low + high) // 2
        if a[start + low : start + middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class RadixTree:
    """Token sequences by holder. At most one sequence a holder; memory is linear in the distinct tokens held."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._ends: dict[int, tuple[_Node, str]] = {}
        self.size = 0  # tokens on all edges: a prefix shared by several holders counts once

    def __contains__(self, holder: int) -> bool:
        return holder in self._ends

    def insert(self, holder: int, tokens: list[int], salt: str = "") -> None:
        """`holder` now holds `tokens`, in place of whatever it held before."""
        self.remove(holder)
        node = self._roots.setdefault(salt, _Node([], None))
        node.holders.add(holder)
        at = 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = _Node(tokens[at:], node)
                node.children[tokens[at]] = child
                self.size += len(child.edge)
                at = len(tokens)
            else:
                shared = common_prefix(tokens, child.edge, at)
                if shared < len(child.edge):
                    child = _split(child, shared)
                at += shared
            child.holders.add(holder)
            node = child
        self._ends[holder] = (node, salt)

    def remove(self, holder: int) -> None:
        """Forget what `holder` holds; nothing happens where it holds nothing."""
        end = self._ends.pop(holder, None)
        if end is None:
            return
        node: _Node | None
        node, salt = end
        while node is not None:
            parent = node.parent
            node.holders.discard(holder)
            if not node.holders:
                self.size -= len(node.edge)
                if parent is not None:
                    del parent.children[node.edge[0]]
                else:
                    del self._roots[salt]
            else:
                self._merge(node)
            node = parent

    def match(self, tokens: list[int], salt: str = "") -> tuple[int, frozenset[int]]:
        """The longest prefix of `tokens` that some holder shares, and all who share it: (0, none) where
        nobody does.
        """
        node = self._roots.get(salt)
        at = 0
        while node is not None and at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                break
            shared = common_prefix(tokens, child.edge, at)
            at += shared
            node = child
            if shared < len(child.edge):
                break
        return (at, frozenset(node.holders)) if node is not None and at else (0, frozenset())

    def _merge(self, node: _Node) -> None:
        """Join `node` with its only child where nobody ends between them, so that splits do not outlive their
        cause.
        """
        if node.parent is None or len(node.children) != 1:
            return
        (child,) = node.children.values()
        if child.holders != node.holders:  # whoever is missing below ends here
            return
        child.edge = node.edge + child.edge
        child.parent = node.parent
        node.parent.children[child.edge[0]] = child


def _split(node: _Node, at: int) -> _Node:
    """Cut `node`'s edge after `at` tokens; returns the new upper half."""
    upper = _Node(node.edge[:at], node.parent)
    upper.holders = set(node.holders)
    if node.parent is not None:
        node.parent.children[upper.edge[0]] = upper
    node.edge = node.edge[at:]
    node.parent = upper
    upper.children[node.edge[0]] = node
    return upper
