"""How many readings of a text a schema's grammar may keep open at once.

The sampler follows every reading. Two alternatives that look alike and contain themselves (an array of arrays of
arrays in two ways) double with each level, and a model asked for brackets would stall every answer beside its own.
This keeps a sketch of the rules that a schema becomes, and says before anything is sampled whether that can happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Readings allowed at once; alternatives that look alike, and that many of them in all.
MAX_READINGS = 64
MAX_UNIONS = 60

_CONTAINERS = frozenset({"object", "array", "value"})


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object: `texts` are its only values, where it has but a few."""

    key: str
    required: bool
    value: str
    texts: frozenset[str] | None


@dataclass(slots=True)
class Sketch:
    """What the rules of a schema hold, by rule name.

    kinds: "object" or "array" for rules of those ("value" for any value at all); others are scalars. inside: the rules
    of the values in a container. members: of objects with declared members. leads: the alternatives of a union, or
    what a reference stands for.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    inside: dict[str, list[str]] = field(default_factory=dict)
    members: dict[str, list[Member]] = field(default_factory=dict)
    leads: dict[str, list[str]] = field(default_factory=dict)

    def alike(self, union: str) -> list[str]:
        """The containers among a union's alternatives that cannot be told apart before they nest."""
        found: list[str] = []
        for kind in ("object", "array"):
            leaves = [leaf for leaf in self.leaves(union) if self.kinds.get(leaf) in (kind, "value")]
            leaves = [leaf for leaf in leaves if self._nests(leaf)]
            found += [
                leaf for leaf in leaves if any(other != leaf and not self._distinct(leaf, other) for other in leaves)
            ]
        return list(dict.fromkeys(found))

    def leaves(self, name: str) -> list[str]:
        """The rules that `name` may stand for, unions and references followed."""
        seen: dict[str, None] = {}
        todo = [name]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen[one] = None
                todo.extend(self.leads.get(one, ()))
        return [one for one in seen if one not in self.leads]

    def excessive(self, root: str) -> bool:
        """True where more than MAX_READINGS readings could be open at once."""
        unions = {union: leaves for union in self.leads if len(leaves := self.alike(union)) > 1}
        if len(unions) > MAX_UNIONS:
            return True
        for union, leaves in unions.items():
            if sum(union in self._reachable(leaf) for leaf in leaves) > 1:
                return True
        return self._readings(root, unions, {}) > MAX_READINGS

    def _readings(self, name: str, unions: dict[str, list[str]], known: dict[str, int]) -> int:
        if name in known:
            return known[name]
        known[name] = 1  # what a rule met again inside itself counts for
        below = [*self.inside.get(name, ()), *self.leads.get(name, ())]
        most = max((self._readings(one, unions, known) for one in below), default=1)
        if name in unions:
            most = max(most, sum(self._readings(leaf, unions, known) for leaf in unions[name]))
        known[name] = min(most, MAX_READINGS + 1)
        return known[name]

    def _reachable(self, name: str) -> set[str]:
        seen: set[str] = set()
        todo = [*self.inside.get(name, ())]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += [*self.inside.get(one, ()), *self.leads.get(one, ())]
        return seen

    def _nests(self, leaf: str) -> bool:
        """True where a container may stand inside this one."""
        if self.kinds[leaf] == "value" or leaf not in self.inside:
            return True
        return any(self._holds_container(one) for one in self.inside[leaf])

    def _holds_container(self, name: str) -> bool:
        return any(self.kinds.get(leaf) in _CONTAINERS for leaf in self.leaves(name))

    def _distinct(self, one: str, other: str) -> bool:
        """True where two containers part ways before either can nest."""
        if self.kinds[one] == "value" or self.kinds[other] == "value" or self.kinds[one] != self.kinds[other]:
            return self.kinds[one] != self.kinds[other] and "value" not in (self.kinds[one], self.kinds[other])
        left, right = self.members.get(one), self.members.get(other)
        if not left or not right:
            return False
        for mine, yours in zip(left, right, strict=False):
            if not mine.required or not yours.required:
                return not _beginnings(left, left.index(mine)) & _beginnings(right, right.index(yours))
            if mine.key != yours.key or _disjoint(mine, yours):
                return True
            if self._holds_container(mine.value) or self._holds_container(yours.value):
                return False
        return False


def _beginnings(members: list[Member], at: int) -> set[str]:
    """Keys that may come next from member `at` on."""
    keys: set[str] = set()
    for member in members[at:]:
        keys.add(member.key)
        if member.required:
            return keys
    # All optional: the object may end here, or other keys may come.
    return keys


def _disjoint(one: Member, other: Member) -> bool:
    return one.texts is not None and other.texts is not None and not one.texts & other.texts
