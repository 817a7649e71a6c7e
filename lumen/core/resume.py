"""After a stream broke: the ways in which a target can go on with the answer, the most faithful first. Pure.

| rung | holds where |
| --- | --- |
| token-exact | the same model replays token ids, and every delivered token is known (one choice; see `Place.state`) |
| replay-exact | the same model, and a request that repeats itself: temperature 0, or a seed the target honours |
| prefill | the target continues an assistant message, and the answer so far is one choice of plain text |
| prefill | any target, of a completion of one text: its prompt with the answer behind it |
| anchored | any chat model, under the same restriction |
| restart | nothing was delivered that could be doubled: reasoning at most |
| none | an honest error |

Plain text: no tool call or refusal was begun, no JSON was asked for, no reasoning was delivered. Two halves of such
answers by two models must not be put together. What was put together so, by prefill, anchored or restart, is no
model's answer as a whole: neither exact rung holds for it any more. At most two splices an answer, whatever the rung,
unless its route says otherwise (`max_splices`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from msgspec import Struct

from lumen.core.trace import Trace

# As drawn in the design; what a route may set instead is bounded where the configuration is read.
MAX_SPLICES = 2


class Rung(Enum):
    """A way to go on; the value is its name in ledger, metrics and the comment at the seam."""

    TOKEN_EXACT = "token-exact"
    REPLAY_EXACT = "replay-exact"
    PREFILL = "prefill"
    ANCHORED = "anchored"
    RESTART = "restart"
    NONE = "none"


NOTHING = (Rung.NONE,)
# Rungs that ask a target for something the client did not: its refusal says nothing about the client's request.
_CHANGED = frozenset({Rung.TOKEN_EXACT, Rung.PREFILL, Rung.ANCHORED})
_NOT_UNDERSTOOD = frozenset({400, 422})


class Asked(Struct, frozen=True, gc=False):
    """Facts of the call. `json`: the answer must be JSON. `temperature`, `seed`: as given, `None` where not.

    `appends`: it is a completion of one text, which the answer so far can be put behind.
    `state`: what may come next hangs on more than the tokens so far: penalties, stop strings, a grammar, tools, or log
    probabilities beside the tokens. `lent`: the seed is not the client's; only targets that replay token ids get it.
    """

    chat: bool
    stream: bool
    answers: int
    json: bool
    temperature: float | None
    seed: int | None
    state: bool = False
    lent: bool = False
    appends: bool = False

    @property
    def repeatable(self) -> bool:
        """Some target may give the same text again."""
        return self.temperature == 0 or self.seed is not None


@dataclass(frozen=True, slots=True)
class Place:
    """Facts of the target that is to go on.

    `same_model`: it serves the model that broke off. `token_ids`: it replays token ids. `prefill`: it continues an
    assistant message. `seed`: it honours a seed. `state`: it replays through penalties, grammar and parsers too.
    """

    same_model: bool
    token_ids: bool
    prefill: bool
    seed: bool
    state: bool = True


def rungs(
    trace: Trace, asked: Asked, at: Place, splices: int, *, most: int = MAX_SPLICES, mixed: bool = False
) -> tuple[Rung, ...]:
    """The rungs that hold, best first; `(Rung.NONE,)` where none does.

    Args:
        trace: what the client has; not complete.
        splices: continuations already made of this answer, of at most `most`.
        mixed: one of them was another model's own text, which no model gives again.
    """
    if not asked.stream or splices >= most:
        return NOTHING
    found = []
    same = at.same_model and not mixed
    if same:
        whole = at.state or (bool(trace.prompt_ids) and not (asked.state or trace.reasoning or trace.actionable))
        if at.token_ids and whole and asked.answers == 1 and trace.exact and trace.token_ids:
            found.append(Rung.TOKEN_EXACT)
    repeats = asked.temperature == 0 or (asked.seed is not None and at.seed)
    if same and repeats and _checkable(trace):
        found.append(Rung.REPLAY_EXACT)
    blank = not trace.text.strip()
    plain = trace.whole_text and not trace.actionable
    if plain and blank and not trace.finished:
        found.append(Rung.RESTART)
    if plain and not blank and not trace.reasoning and asked.answers == 1 and not asked.json:
        if asked.appends or (asked.chat and at.prefill):
            found.append(Rung.PREFILL)
        if asked.chat:
            found.append(Rung.ANCHORED)
    return tuple(found) or NOTHING


def moves_down(rung: Rung, status: int) -> bool:
    """Whether a target's refusal means only that it does not do this rung. Such a refusal is never told to a client."""
    return rung in _CHANGED and status in _NOT_UNDERSTOOD


def _checkable(trace: Trace) -> bool:
    """All that was delivered is at hand to compare a repetition with."""
    return trace.replayable or (trace.whole_text and not trace.actionable and not trace.reasoning)
