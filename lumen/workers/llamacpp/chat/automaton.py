"""Regular languages as deterministic automata, and those as GBNF.

The sampler explores every way in which a grammar can read a token, without noticing that two of them have come to the
same place: an ambiguous rule such as ([a-z]*[a-z]*)* costs time exponential in the length of a token. One rule for
each state of a deterministic automaton leaves it a single way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from lumen.workers.llamacpp.chat.gbnf import Rules, SchemaError, literal

Ranges = list[tuple[int, int]]
TOP = 0x10FFFF

#: States of the automata, and steps of the construction.
MAX_NFA = 4_000
MAX_DFA = 1_200
MAX_STEPS = 400_000

#: What may stand in a JSON string as itself, and what only as an escape.
_PLAIN: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, TOP)]
_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x0C: "\\f", 0x08: "\\b"}


def complement(ranges: Ranges) -> Ranges:
    """All code points but these."""
    out: Ranges = []
    begin = 1
    for low, high in sorted(ranges):
        if low > begin:
            out.append((begin, low - 1))
        begin = max(begin, high + 1)
    if begin <= TOP:
        out.append((begin, TOP))
    return out


@dataclass(slots=True)
class Nfa:
    """States with moves on characters and free moves, built piece by piece: a piece is (its first, its last state)."""

    moves: list[list[tuple[Ranges, int]]] = field(default_factory=list)
    free: list[list[int]] = field(default_factory=list)

    def state(self) -> int:
        if len(self.moves) >= MAX_NFA:
            raise SchemaError("the pattern repeats too much")
        self.moves.append([])
        self.free.append([])
        return len(self.moves) - 1

    def empty(self) -> tuple[int, int]:
        state = self.state()
        return state, state

    def chars(self, ranges: Ranges) -> tuple[int, int]:
        first, last = self.state(), self.state()
        self.moves[first].append((ranges, last))
        return first, last

    def chain(self, pieces: Iterable[tuple[int, int]]) -> tuple[int, int]:
        first, last = self.empty()
        for begin, end in pieces:
            self.free[last].append(begin)
            last = end
        return first, last

    def either(self, pieces: Iterable[tuple[int, int]]) -> tuple[int, int]:
        first, last = self.state(), self.state()
        for begin, end in pieces:
            self.free[first].append(begin)
            self.free[end].append(last)
        return first, last

    def star(self, piece: tuple[int, int]) -> tuple[int, int]:
        first, last = self.state(), self.state()
        begin, end = piece
        self.free[first] += [begin, last]
        self.free[end] += [begin, last]
        return first, last

    def optional(self, piece: tuple[int, int]) -> tuple[int, int]:
        return self.either([piece, self.empty()])


@dataclass(slots=True)
class _Dfa:
    """moves[s]: disjoint (range, next state). accepting[s]. State 0 is the first."""

    moves: list[list[tuple[tuple[int, int], int]]]
    accepting: list[bool]


def string_rule(rules: Rules, nfa: Nfa, piece: tuple[int, int]) -> str:
    """Rule of a JSON string, quotes included, whose text the automaton takes. Raises SchemaError."""
    dfa = _determined(nfa, piece)
    alive = _alive(dfa)
    if 0 not in alive:
        raise SchemaError("the pattern matches no text that JSON can hold")
    names = {state: rules.reserve("match") for state in sorted(alive)}
    for state, name in names.items():
        groups: dict[int, Ranges] = {}
        for span, target in dfa.moves[state]:
            if target in alive:
                groups.setdefault(target, []).append(span)
        branches = [f"{text} {names[target]}" for target, ranges in groups.items() for text in _spelled(ranges)]
        if dfa.accepting[state]:
            branches.append('"\\""')
        rules.define(name, " | ".join(branches))
    return rules.add("matching", f'"\\"" {names[0]}')


def _determined(nfa: Nfa, piece: tuple[int, int]) -> _Dfa:
    first, last = piece
    start = _closure(nfa, [first])
    numbers = {start: 0}
    dfa = _Dfa([], [])
    todo = [start]
    steps = 0
    while todo:
        states = todo.pop(0)
        moves = []
        for span, targets in _spans([move for state in states for move in nfa.moves[state]]):
            steps += len(targets) + len(states)
            following = _closure(nfa, targets)
            steps += len(following)
            if following not in numbers:
                numbers[following] = len(numbers)
                todo.append(following)
            moves.append((span, numbers[following]))
        if len(numbers) > MAX_DFA or steps > MAX_STEPS:
            raise SchemaError("the pattern has too many states")
        dfa.moves.append(moves)
        dfa.accepting.append(last in states)
    return dfa


def _closure(nfa: Nfa, states: Iterable[int]) -> frozenset[int]:
    seen = set(states)
    todo = list(seen)
    while todo:
        for state in nfa.free[todo.pop()]:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return frozenset(seen)


def _spans(moves: list[tuple[Ranges, int]]) -> list[tuple[tuple[int, int], list[int]]]:
    """The moves cut into disjoint spans of characters, each with all states it leads to."""
    events: dict[int, tuple[list[int], list[int]]] = {}
    for ranges, target in moves:
        for low, high in ranges:
            events.setdefault(low, ([], []))[0].append(target)
            events.setdefault(high + 1, ([], []))[1].append(target)
    out = []
    counts: dict[int, int] = {}
    for place, after in pairwise(sorted(events)):
        for target in events[place][0]:
            counts[target] = counts.get(target, 0) + 1
        for target in events[place][1]:
            counts[target] -= 1
            if not counts[target]:
                del counts[target]
        if counts:
            out.append(((place, after - 1), list(counts)))
    return out


def _alive(dfa: _Dfa) -> set[int]:
    """States from which an accepting one can be reached over characters that JSON can hold."""
    back: dict[int, list[int]] = {}
    for state, moves in enumerate(dfa.moves):
        for span, target in moves:
            if _spelled([span]):
                back.setdefault(target, []).append(state)
    alive = {state for state, accepting in enumerate(dfa.accepting) if accepting}
    todo = list(alive)
    while todo:
        for state in back.get(todo.pop(), ()):
            if state not in alive:
                alive.add(state)
                todo.append(state)
    return alive


def _spelled(ranges: Ranges) -> list[str]:
    """GBNF of one character of these ranges as it stands in a JSON string: a class, and an escape for each that needs
    one. Empty where JSON holds none of them."""
    plain = []
    for low, high in ranges:
        for first, last in _PLAIN:
            begin, end = max(low, first), min(high, last)
            if begin <= end:
                plain.append(_char(begin) if begin == end else f"{_char(begin)}-{_char(end)}")
    out = [f"[{''.join(plain)}]"] if plain else []
    return out + [literal(text) for code, text in _ESCAPES.items() if any(a <= code <= b for a, b in ranges)]


def _char(code: int) -> str:
    if 0x30 <= code <= 0x39 or 0x41 <= code <= 0x5A or 0x61 <= code <= 0x7A:
        return chr(code)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
