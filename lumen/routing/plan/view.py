"""The request and the targets as a policy sees them. Nothing is computed before it is asked for, and then once.

Expected cost of a target, in pico-dollars: estimated input tokens at its price, the answer it usually gives (what the
scorer expects, else the mean of its last answers, within the client's limit) at its price, its prices by the request
and by the second, less what its cache of this conversation's beginning saves. Pure: what others know comes in as
`Known`, chance as `draw`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from lumen.core.expression import Condition
from lumen.core.money import Price
from lumen.routing.plan.facts import Facts, asks_text
from lumen.routing.plan.once import once
from lumen.wire.call import Call

if TYPE_CHECKING:
    from lumen.routing.auto.scorer import Score, Scorer

# Output tokens of an answer of which nothing is known.
USUAL_ANSWER = 300.0


class Candidate(Struct, frozen=True, gc=False):
    """A target as a policy sees it; `key` is its place in the route's own list.

    `price`: `None` where it is not known. `context`: tokens of its window, where known. `tools`, `images`,
    `structured`: what it can do. `local`: it runs on this machine.
    """

    key: int
    name: str
    weight: float = 1.0
    price: Price | None = None
    context: int | None = None
    tools: bool = True
    images: bool = True
    structured: bool = True
    local: bool = False


class Past(Struct, frozen=True, gc=False):
    """What a conversation left at the target that answered it last. `tokens`: of prompt and answer then.

    `since`: requests at that target in a row.
    """

    target: str
    tokens: int
    since: int


class Ruling(Struct, frozen=True, gc=False):
    """A rule of the configuration, ready: `key` is the target it puts first."""

    written: str
    holds: Condition
    key: int


class Goal(Struct, frozen=True, gc=False):
    """What a route wants, as it is configured. `names`: its targets'. `strong`: the key of its strong target.

    Shares lie in [0, 1].
    """

    route: str
    names: tuple[str, ...] = ()
    strong: int = 0
    quality: float | None = None
    max_loss: float = 0.01
    confidence: float = 0.95
    rules: tuple[Ruling, ...] = ()


class Known(Protocol):
    """What the process knows of its targets at this moment."""

    def out(self, names: Sequence[str]) -> Mapping[str, str]:
        """Which of them would not be asked now, and why."""

    def first_token(self, name: str) -> float | None:
        """Seconds that it usually takes to its first token."""

    def per_token(self, name: str) -> float | None:
        """Seconds that a token usually takes."""

    def answer(self, name: str) -> float | None:
        """Output tokens of its usual answer."""

    def wakes(self, name: str) -> float:
        """Seconds until a local model that sleeps or is off would serve; 0: it does."""

    def past(self, thread: int) -> Past | None:
        """Where this conversation (see `Facts.thread`) was last, while a cache of it may live."""

    def scorer(self, route: str) -> tuple[Scorer | None, str]:
        """The scorer in force with the number of its version, or why there is none."""


class View:
    """One request before the targets of one route. `given`: what `Facts` is made of. `draw`: uniform in [0, 1)."""

    def __init__(
        self, goal: Goal, known: Known, draw: Callable[[], float], given: tuple[Call, int, str, Mapping[str, str]]
    ) -> None:
        self.goal = goal
        self._known = known
        self.draw = draw
        self._given = given

    @once
    def facts(self) -> Facts:
        """The request itself."""
        return Facts(*self._given)

    @property
    def conversation(self) -> bytes:
        """The same for all requests of one conversation."""
        return self.facts.conversation

    @once
    def thread(self) -> int:
        """The same in this process."""
        return self.facts.thread

    def read(self, field: str) -> Any:
        """A field of the request, as conditions name it."""
        return self.facts.read(field)

    # -- of one target ---------------------------------------------------------------------------------------

    def lacks(self, candidate: Candidate) -> str | None:
        """Why this target cannot serve this request; `None`: it can, as far as is known."""
        return lacking(self.facts, candidate)

    def out(self, candidate: Candidate) -> str | None:
        """Why this target would not be asked now; `None`: it would."""
        return self._out.get(candidate.name)

    def answer(self, candidate: Candidate) -> float:
        """Output tokens expected of it for one answer."""
        score = self.scored
        expected = None
        if score is not None:
            expected = next((one.tokens for one in score.targets if one.target == candidate.name), None)
        if expected is None:
            expected = self._known.answer(candidate.name) or USUAL_ANSWER
        return min(expected, float(self.facts.limit)) if self.facts.limit else expected

    def cost(self, candidate: Candidate) -> int | None:
        """Pico-dollars expected of this request; `None` where its price is not known."""
        price = candidate.price
        if price is None:
            return None
        tokens = self.facts.tokens
        rate = price.at(tokens) if price.tiers else price
        output = self.answer(candidate) * self.facts.call.answers
        seconds = (self.seconds(candidate) or 0.0) if price.per_second else 0.0
        cost = tokens * rate.input + output * rate.output + price.per_request + seconds * price.per_second
        return max(round(cost) - self.kept(candidate), 0)

    def kept(self, candidate: Candidate) -> int:
        """Pico-dollars that its cache of this conversation's beginning saves; 0 where it has none, or gives nothing."""
        past, price = self.past, candidate.price
        if past is None or price is None or past.target != candidate.name:
            return 0
        rate = price.at(self.facts.tokens)
        if rate.cached_input is None:
            return 0
        return max(rate.input - rate.cached_input, 0) * min(past.tokens, self.facts.tokens)

    def first_token(self, candidate: Candidate) -> float | None:
        """Seconds to its first token as usual now, its waking included; `None` while too little is known."""
        usual = self._known.first_token(candidate.name)
        return None if usual is None else usual + (self._known.wakes(candidate.name) if candidate.local else 0.0)

    def seconds(self, candidate: Candidate) -> float | None:
        """Seconds to the end of its answer, as far as is known."""
        first, each = self.first_token(candidate), self._known.per_token(candidate.name)
        return None if first is None else first + (each or 0.0) * self.answer(candidate)

    # -- of the route ----------------------------------------------------------------------------------------

    @once
    def past(self) -> Past | None:
        """Where this conversation was last."""
        return self._known.past(self.thread)

    @property
    def scorer(self) -> tuple[Scorer | None, str]:
        """The route's scorer with the number of its version, or why there is none."""
        return self._known.scorer(self.goal.route)

    @once
    def scored(self) -> Score | None:
        """What the route's scorer makes of this request; `None`: see `unscored`."""
        scorer, _ = self.scorer
        return scorer.score(self.facts.ask) if scorer is not None and asks_text(self.facts.call) else None

    @property
    def unscored(self) -> str:
        """Why there is no score."""
        scorer, why = self.scorer
        return why if scorer is None else "only chats and completions are scored"

    @once
    def _out(self) -> Mapping[str, str]:
        return self._known.out(self.goal.names)


def lacking(facts: Facts, candidate: Candidate) -> str | None:
    """Why a target cannot serve a request; `None`: it can, as far as is known."""
    if facts.tools and not candidate.tools:
        return "it takes no tools"
    if facts.images and not candidate.images:
        return "it takes no images"
    if facts.structured and not candidate.structured:
        return "it cannot be held to JSON"
    needed = facts.tokens + (facts.limit or 1)
    if candidate.context is not None and needed > candidate.context:
        return f"about {needed} tokens do not fit its {candidate.context}"
    return None
