"""One request's bill while it is under way: its tries, what they may cost, and what they came to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import msgspec

from lumen.core import budget
from lumen.core.budget import Account
from lumen.core.lengths import FLOOR, Lengths
from lumen.core.meter import NOTHING, Bill, Seen, Tokens, bill, estimate_input, output_within, units, worst
from lumen.core.money import FREE, Price
from lumen.core.rate import Gate
from lumen.core.resume import Rung
from lumen.gateway.need import Need
from lumen.ledger.rows import BEYOND, ESTIMATED, UNPRICED, AttemptRow, HoldRow
from lumen.ledger.store import LedgerError
from lumen.wire.answers import Units, Usage
from lumen.wire.call import Call, Event
from lumen.wire.requests import ChatRequest, Plain

# Of a request that was scored: target → how likely its answer is good enough, and what that had to reach.
Marks = Mapping[str, tuple[float | None, float | None]]
UNMARKED: Marks = MappingProxyType({})

# The JSON around the text of a whole answer, or of an event where there is no other to compare with.
_AROUND = 300
# Characters a piece on the average, above which no piece is a single token.
_ONE_TOKEN = 16
# How many times the least rate of audio the usual one is.
_USUAL_TO_LEAST = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """A target as money sees it, resolved when the configuration loads.

    `price`: `None` where it is not known. `context`: its window in tokens. `most_output`: the longest answer it
    gives. `most_micros`: the longest it can be at work, for prices by the second; 15 minutes is the usual limit.
    """

    target: str
    provider: str
    model: str
    price: Price | None
    context: int | None = None
    most_output: int | None = None
    most_micros: int = 900_000_000


class Line:
    """One try at one target. `call`: what to send, its answer bounded where money is; `note` every event."""

    __slots__ = ("_bytes", "_carried", "_extra", "_fidelity", "_ids", "_least", "_pieces", "_resumed_at", "_tab",
                 "_text", "answered", "asked", "began", "bill", "call", "ended", "first", "offer", "outcome", "queue",
                 "sent", "usage", "wake", "worst")  # fmt: skip

    def __init__(self, tab: Tab, offer: Offer, call: Call, worst: int, carried: int, extra: int) -> None:
        self._tab = tab
        self.offer = offer
        self.call = call
        self.worst = worst
        self.began = tab.elapsed()
        self.first: int | None = None
        self.ended = 0
        self.outcome: str | None = None
        self.bill: Bill = NOTHING
        self.usage: Usage | None = None
        # Set it once the target has the request: a cancelled try is charged its input from then on.
        self.sent = False
        # Microseconds; `None` until its target answered. `answered`: when it did, after the request came.
        self.wake: int | None = None
        self.queue: int | None = None
        self.answered: int | None = None
        self._carried, self._extra = carried, extra
        self._pieces = self._bytes = self._ids = self._text = 0
        self._least = 1 << 62
        self._resumed_at: int | None = None
        self._fidelity: str | None = None
        # To be awaited before the target is asked, where another gateway keeps the accounts.
        self.asked: Coroutine[None, None, None] | None = None

    def note(self, event: Event) -> None:
        """Count an event as it goes to the client."""
        if event.content:
            size = len(event.data)
            self._pieces += 1
            self._bytes += size
            if size < self._least:
                self._least = size
            if event.text is not None:
                self._text += len(event.text)
            if self.first is None:
                self.first = self._tab.elapsed()
        if event.token_ids:
            self._ids += len(event.token_ids)
        if event.usage is not None:
            self.usage = event.usage

    def waited(self, wake: float, queue: float, target: float) -> None:
        """Its target answers now; seconds it waited for it to wake, for a turn before it, and for a turn at it."""
        # Of a whole answer nobody sees when its turn came.
        turn = queue + target if self.call.stream else queue
        self.wake, self.queue, self.answered = int(wake * 1e6), int(turn * 1e6), self._tab.elapsed()

    def resumed(self, at: int, fidelity: str) -> None:
        """This try goes on where another stopped: after `at` tokens, by that rung of the ladder."""
        self._resumed_at, self._fidelity = at, fidelity

    def end(self, outcome: str) -> None:
        """Over, with `ok`, `cancelled` or an error's code; only the first end counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.ended = self._tab.elapsed()
            self.bill = self.so_far()

    def reported_input(self) -> int | None:
        """The input tokens that its target counted, where it said."""
        told = self._reported()
        return told.input if told is not None else None

    def counts(self, prompt: int | None) -> tuple[int, int]:
        """Tokens of the client's prompt and of the whole answer, as near as can be told without its target's word.

        Args:
            prompt: what an earlier target has counted.
        """
        if prompt is None:
            prompt = estimate_input(self._tab.need.input_bytes)
        # A repetition begins at the beginning, everything else where the answer broke off.
        before = 0 if self._fidelity == Rung.REPLAY_EXACT.value else self._resumed_at or 0
        return prompt, before + (self.so_far(prompt).tokens.output or 0)

    def correct(self, input_tokens: int) -> None:
        """Another target has counted the same input: where this one did not, its estimate becomes that."""
        if self.bill.estimated and self.reported_input() is None and not self._extra:
            self.bill = self.so_far(input_tokens)

    def so_far(self, input_tokens: int | None = None) -> Bill:
        """What it has come to until now.

        Charged is a try that gave something or finished, and one that a client's going away, or another target's being
        faster, ended while the target had it (its input). A target that refused, was silent or could not be reached
        has done nothing to charge.
        """
        worked = self._pieces > 0 or self.usage is not None or self.outcome == "ok"
        if not worked and not (self.sent and self.outcome in ("cancelled", "hedged")):
            return NOTHING
        price = self.offer.price or FREE
        micros = (self.ended or self._tab.elapsed()) - self.began
        made = bill(price, self._reported(), self._seen(input_tokens), micros)
        return self._with_units(made, price) if price.by_unit else made

    def _with_units(self, made: Bill, price: Price) -> Bill:
        """With what images and audio cost. Where the target does not count them, they are those that were asked for."""
        usage, need, estimated = self.usage, self._tab.need, made.estimated
        images, seconds = need.images, need.seconds / _USUAL_TO_LEAST
        if isinstance(usage, Units):
            images, seconds = usage.images, usage.seconds or seconds
            told = usage.seconds > 0 or not (need.seconds and price.per_audio_second)
            estimated = not told or (estimated and bool(price.input or price.output))
        return msgspec.structs.replace(made, cost=made.cost + units(price, images, seconds), estimated=estimated)

    def row(self, seq: int) -> AttemptRow:
        tab, offer, tokens = self._tab, self.offer, self.bill.tokens
        flags = ESTIMATED if self.bill.estimated else 0
        if offer.price is None:
            flags |= UNPRICED
        elif self.bill.cost > self.worst:
            flags |= BEYOND
        return AttemptRow(
            tab.request_id, seq, tab.key, tab.route, offer.target, offer.provider, offer.model, tab.operation,
            tab.booked, self.began, self.first, self.ended, tokens.input, tokens.output, tokens.cached,
            tokens.cache_write, tokens.reasoning, self.bill.cost, flags, self.outcome or "", self._resumed_at,
            self._fidelity, self.wake, self.queue, self._prefill(), *tab.marks.get(offer.target, (None, None)),
        )  # fmt: skip

    def _prefill(self) -> int | None:
        if self.first is None or self.answered is None or not self.call.stream:
            return None
        return max(self.first - self.answered, 0)

    def _reported(self) -> Tokens | None:
        usage = self.usage
        if usage is None:
            # Nothing came of it, so nothing went out: that much is known.
            return None if self._pieces or self.outcome == "ok" else Tokens(output=0)
        # All counts zero although an answer came: they are absent, as some servers send them.
        blank = not (usage.prompt_tokens or usage.completion_tokens) and self._pieces > 0
        output = None if blank or usage.completion_tokens is None else max(usage.completion_tokens - self._carried, 0)
        before, after = usage.prompt_tokens_details, usage.completion_tokens_details
        return Tokens(
            input=None if blank else usage.prompt_tokens,
            output=output,
            cached=before.cached_tokens if before else None,
            cache_write=getattr(before, "cache_write_tokens", None) if before else None,
            reasoning=after.reasoning_tokens if after else None,
        )

    def _seen(self, input_tokens: int | None) -> Seen:
        if not self._tab.need.answers:
            # No text was made, so none is counted.
            return Seen(self._tab.need.input_bytes + self._extra, input_tokens=input_tokens)
        # Events are JSON around some text; the smallest of them is nearly all frame.
        frame = _AROUND if self._pieces == 1 else self._least - 1
        text = max(self._bytes - self._pieces * frame, 0) if self._pieces else 0
        if not self._ids and self._text > self._pieces * _ONE_TOKEN:
            # Where they are large and alike, the smallest is no frame.
            text = max(text, self._text)
        return Seen(self._tab.need.input_bytes + self._extra, text, self._ids, self._pieces, input_tokens)


class Books(Protocol):
    """What a tab asks of the accounts that it counts in; see `Billing`."""

    # Nanoseconds, for measuring.
    ticks: Callable[[], int]

    def now(self) -> int: ...

    def write(self, tab: Tab, row: HoldRow) -> Awaitable[None] | None: ...

    def closed(self, tab: Tab) -> None: ...


class Tab:
    """One request's tries and the money set aside for them. Made by `Billing.open`; close it, whatever happens."""

    __slots__ = ("_billing", "_expected", "_gate", "_lengths", "_limited", "_most", "_opened",
                 "_reservation", "_ticks", "booked", "call", "closed", "cost", "held", "key", "lines", "marks", "need",
                 "offers", "operation", "request_id", "route")  # fmt: skip

    def __init__(
        self,
        billing: Books,
        request_id: str,
        *,
        key: str,
        route: str,
        call: Call,
        need: Need,
        offers: Sequence[Offer],
        accounts: tuple[Account, ...],
        limited: bool,
        lengths: Lengths,
        most: int | None,
        expected: int,
        gate: Gate | None,
    ) -> None:
        self._billing = billing
        self.request_id, self.key, self.route = request_id, key, route
        self.call, self.need, self.operation = call, need, call.operation.value
        # The targets within every price ceiling, in the plan's order.
        self.offers = tuple(offers)
        self._limited = limited
        self._lengths, self._most = lengths, most
        # The key's gate, where it has one, and the tokens it was charged on entry.
        self._gate, self._expected = gate, expected
        self._ticks = billing.ticks
        self.booked, self._opened = billing.now(), self._ticks() // 1000
        # Bound now, so that what it will cost is counted in the windows it was admitted in.
        self._reservation = budget.bind(accounts, self.booked // 1_000_000)
        self.lines: list[Line] = []
        # For the books.
        self.marks: Marks = UNMARKED
        # What it came to, in pico-dollars, once it is closed.
        self.cost = 0
        self.held = self.closed = False

    def elapsed(self) -> int:
        """Microseconds since the request was admitted."""
        return self._ticks() // 1000 - self._opened

    def begin(
        self, offer: Offer, *, carried: int = 0, extra_bytes: int = 0, delivered: int = 0, slack: int = 0
    ) -> Line:
        """Set money aside for one more try, and make that durable, before the target is asked.

        Args:
            carried: tokens of earlier tries that this target will count in its usage once more.
            extra_bytes: what is sent besides the client's request, such as the answer so far.
            delivered: tokens of the answer that are there already and taken off its limit on the way upstream.
            slack: tokens that are put on top of what is left.

        Raises:
            LumenError: `budget_unsatisfiable` or 429: it does not fit beside what the request has cost already.
            LedgerError: it costs money, and that cannot be written down now.
        """
        call, price, amount, asked, more = self.call, offer.price, 0, None, 0
        if price is not None and not price.free:
            call, amount = self._fit(offer, price, extra_bytes, delivered, slack)
            more = self._committed() + amount - self._reservation.amount
            if more > 0:
                asked = self._cover(offer, price, more)
        line = Line(self, offer, call, amount, carried, extra_bytes)
        self.lines.append(line)
        if asked is not None:
            line.asked = self._granted(line, asked, more)
        return line

    async def _granted(self, line: Line, asked: Awaitable[None], more: int) -> None:
        """Wait until the other gateway holds what was asked for; where it does not, there is no such try.

        Raises:
            LumenError: as `begin`.
        """
        try:
            await asked
        except BaseException:
            budget.lessen(self._reservation, more)
            self.lines.remove(line)
            raise

    def known(self) -> int:
        """What the request has cost until now, as far as can be told."""
        return sum([line.so_far().cost if line.outcome is None else line.bill.cost for line in self.lines])

    def close(self, outcome: str = "ok") -> None:
        """Book everything; its record then survives kill -9. Call it before a client is told that all is done.

        Never waits, so a cancelled request is booked too; a second time it does nothing.
        """
        if self.closed:
            return
        self.closed = True
        for line in self.lines:
            line.end(outcome)
        if len(self.lines) > 1:
            self._correct()
        self.cost = sum([line.bill.cost for line in self.lines])
        budget.settle(self._reservation, self.cost)
        used = self._learn()
        if self._gate is not None:
            self._gate.leave(self._expected, used, self._ticks() // 1000)
        self._billing.closed(self)

    def _correct(self) -> None:
        """What one target has counted of the input is what the others' estimates become."""
        counted = next((told for line in self.lines if (told := line.reported_input()) is not None), None)
        if counted is not None:
            for line in self.lines:
                line.correct(counted)

    # -- money set aside -------------------------------------------------------------------------------------

    def _fit(self, offer: Offer, price: Price, extra_bytes: int, delivered: int, slack: int) -> tuple[Call, int]:
        """The call with its answer bounded, and the most that it can cost then."""
        need, answers = self.need, self.need.answers
        bound = need.input_bound + extra_bytes
        input_tokens = bound if offer.context is None else min(bound, offer.context)
        if isinstance(self.call.request, Plain):
            beside = units(price, need.images, need.seconds)
            return self.call, worst(price, input_tokens, need.output_bound, offer.most_micros) + beside
        each = need.max_tokens
        if each is None:
            each = self._lengths.bound(offer.most_output) if self._most is None else self._most
        left = max(each - delivered, 1) + slack
        amount = worst(price, input_tokens, left * answers, offer.most_micros)
        if need.max_tokens is not None or not self._limited:
            return self.call, amount
        room = budget.room(self._reservation, self._committed())
        if room is not None and amount > room:
            fits = self._within(price, room, left, input_tokens, offer.most_micros)
            each, left = each - (left - fits), fits
            amount = worst(price, input_tokens, left * answers, offer.most_micros)
        return bounded(self.call, each), amount

    def _within(self, price: Price, room: int, each: int, input_tokens: int, micros: int) -> int:
        """A shorter bound that fits what money is left, down to a floor that still makes an answer."""
        fits = output_within(price, room, input_tokens, micros)
        if fits is None:
            return each
        return min(each, max(fits // self.need.answers, min(FLOOR, each)))

    def _cover(self, offer: Offer, price: Price, more: int) -> Awaitable[None] | None:
        """Reserve so much more for one more try beside all earlier ones; to be awaited where another gateway has to."""
        reservation = self._reservation
        refusal = budget.extend(reservation, more)
        if refusal is not None:
            raise budget.refused(refusal)
        # What it is charged should this process die before it learns more: what is spent, and this try's input.
        known = self.known() + worst(price, estimate_input(self.need.input_bytes), 0)
        row = HoldRow(
            self.request_id, self.key, self.route, offer.target, offer.provider, offer.model, self.operation,
            self.booked, reservation.amount, min(known, reservation.amount),
        )  # fmt: skip
        self.held = True
        try:
            return self._billing.write(self, row)
        except LedgerError:
            budget.lessen(reservation, more)
            raise

    def _committed(self) -> int:
        """What earlier tries have cost, and what those still open may."""
        return sum([max(line.worst, 0) if line.outcome is None else line.bill.cost for line in self.lines])

    def _learn(self) -> int:
        """The tokens of it all; an answer that ended by itself teaches how long answers are."""
        used = sum([(line.bill.tokens.input or 0) + (line.bill.tokens.output or 0) for line in self.lines])
        if self.lines and self.lines[-1].outcome == "ok" and self.need.answers:
            length = sum(line.bill.tokens.output or 0 for line in self.lines if line.bill is not NOTHING)
            self._lengths.add(length // self.need.answers)
        return used


def bounded(call: Call, most: int) -> Call:
    """The call with `max_tokens` where its request names no limit."""
    request = call.request
    if isinstance(request, Plain) or request.max_tokens is not None:
        return call
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        return call
    return msgspec.structs.replace(call, request=msgspec.structs.replace(request, max_tokens=most))
